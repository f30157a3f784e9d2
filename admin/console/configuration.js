// What this proxy is, and runs with.
import { act } from "./ask.js";
import { h, keep } from "./dom.js";
import { age, count } from "./format.js";

export function configurationPage() {
  const status = h("section", { class: "panel" }), error = h("section", { class: "panel", hidden: true });
  const said = h("span", { role: "status", class: "dim" });
  const button = (text, path, done, kind, sure) => h("button", {
    type: "button", class: kind, onclick: async () => {
      if (sure && !confirm(sure)) return;
      try { await act(path); keep(said, done); } catch (e) { keep(said, e.message); }
    },
  }, text);
  const root = h("div", {}, error, status,
    h("section", { class: "panel" }, h("h2", {}, "Actions"), h("div", { class: "actions" },
      button("Read the files again", "/reload", "They are being read."),
      button("Drain", "/drain", "This proxy tells the others that it goes; it serves who comes all the same.", "danger", "Drain this proxy? Others will send it no new requests until it is restarted."),
      said)),
    h("section", { class: "panel" }, h("h2", {}, "As text and JSON"), h("p", { class: "dim" }, "Each page is there for scripts too: ",
      ["status", "mesh", "services", "endpoints", "members", "routes", "clusters", "certificates", "config_dump"].map((p) => [h("a", { href: "/" + p + "?format=json" }, p), " "]))));

  function update({ status: st }) {
    error.hidden = !st.snapshot.error;
    keep(error, h("h2", { class: "bad" }, "The files have changed and are not used"), h("pre", {}, st.snapshot.error));
    const facts = [
      ["proxy", st.node], ["version", st.version], ["state", st.ready ? "ready" : "not ready: " + st.reason],
      ["snapshot", `${st.snapshot.number}, ${age(st.snapshot.age)} old`], ["configuration", h("span", { class: "mono" }, st.snapshot.hash)],
      ["warnings", st.warnings ? count(st.warnings, "warning") + ": isthmus validate lists them" : "none"],
      ["endpoints", `${st.endpointsReady} of ${st.endpoints} ready`], ["members", st.members],
      st.identity && ["identity", [h("span", { class: "mono" }, st.identity), ` until ${new Date(st.identityEnds).toLocaleString()}`]],
      ...Object.entries(st.listeners).sort().map(([name, address]) => [name, h("span", { class: "mono" }, address)]),
    ].filter(Boolean);
    keep(status, h("h2", {}, "This proxy"), h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
  }
  return { root, update };
}
