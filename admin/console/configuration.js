// What this proxy is, and runs with.
import { act, ask } from "./ask.js";
import { h, keep } from "./dom.js";
import { age, count } from "./format.js";

const findingsAtMost = 200;

export function configurationPage({ open }) {
  const status = h("section", { class: "panel" }), error = h("section", { class: "panel", hidden: true });
  const said = h("span", { role: "status", class: "dim" });
  const button = (text, path, done, kind, sure) => h("button", {
    type: "button", class: kind, onclick: async () => {
      if (sure && !confirm(sure)) return;
      try { await act(path); keep(said, done); } catch (e) { keep(said, e.message); }
    },
  }, text);
  const history = h("section", { class: "panel", hidden: true }), findings = h("section", { class: "panel", hidden: true });
  const root = h("div", {}, error, status, history, findings,
    h("section", { class: "panel" }, h("h2", {}, "Actions"), h("div", { class: "actions" },
      button("Read the files again", "/reload", "They are being read."),
      button("Drain", "/drain", "This proxy tells the others that it goes; it serves who comes all the same.", "danger", "Drain this proxy? Others will send it no new requests until it is restarted."),
      said)),
    h("section", { class: "panel" }, h("h2", {}, "As text and JSON"), h("p", { class: "dim" }, "Each page is there for scripts too: ",
      ["status", "mesh", "services", "endpoints", "members", "routes", "clusters", "certificates", "why", "config/history", "config/findings", "config_dump"].map((p) => [h("a", { href: "/" + p + "?format=json" }, p), " "]))));

  let shown = "";
  async function more(st) {
    const now = st.snapshot.hash + st.snapshot.error + st.snapshot.revision + st.snapshot.rollback;
    if (now === shown) return;
    try {
      const [revisions, list] = await Promise.all([ask("/config/history"), ask("/config/findings")]);
      shown = now;
      history.hidden = revisions.length === 0;
      keep(history, h("h2", {}, "History"), h("div", { class: "scroll" }, historyTable(revisions)));
      findings.hidden = list.length === 0;
      keep(findings, h("h2", {}, "Findings of what is in force"), h("div", { class: "scroll" }, findingsTable(list)));
    } catch {
      // asked again in two seconds
    }
  }
  root.addEventListener("click", async (e) => {
    const { diff, back } = e.target.closest("button")?.dataset ?? {};
    try {
      if (diff) open(null, "What revision " + diff.split(" ")[1] + " changed", difference(await ask("/config/diff?" + new URLSearchParams({ from: diff.split(" ")[0], to: diff.split(" ")[1] }))));
      if (back && confirm(`Bring the configuration of revision ${back} back? It is in force until the files change.`)) await act("/config/rollback?to=" + back);
    } catch (failed) { keep(said, failed.message); said.scrollIntoView({ block: "center" }); }
  });

  function update({ status: st }) {
    more(st);
    error.hidden = !st.snapshot.error;
    keep(error, h("h2", { class: "bad" }, "The files have changed and are not used"), h("pre", {}, st.snapshot.error));
    const facts = [
      ["proxy", st.node], ["version", st.version], ["state", st.ready ? "ready" : "not ready: " + st.reason],
      ["snapshot", `${st.snapshot.number}, ${age(st.snapshot.age)} old`], ["configuration", h("span", { class: "mono" }, st.snapshot.hash)],
      ["warnings", st.warnings ? count(st.warnings, "warning") + ", below" : "none"],
      ["endpoints", `${st.endpointsReady} of ${st.endpoints} ready`], ["members", st.members],
      st.identity && ["identity", [h("span", { class: "mono" }, st.identity), ` until ${new Date(st.identityEnds).toLocaleString()}`]],
      ...Object.entries(st.listeners).sort().map(([name, address]) => [name, h("span", { class: "mono" }, address)]),
    ].filter(Boolean);
    keep(status, h("h2", {}, "This proxy"), h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
  }
  return { root, update };
}

const resource = (r) => `${r.kind} ${r.namespace}/${r.name}`;

function historyTable(revisions) {
  const changes = (c) => [["~", c.changed], ["+", c.added], ["−", c.removed]].flatMap(([mark, list]) => (list ?? []).map((r) => mark + " " + resource(r)));
  const previous = (i) => revisions.slice(i + 1).find((r) => !r.error && r.kept);
  return h("table", {},
    h("thead", {}, h("tr", {}, ["revision", "when", "configuration", "state", "changes", ""].map((n) => h("th", {}, n)))),
    h("tbody", {}, revisions.map((r, i) => {
      const all = changes(r.changes), before = previous(i);
      return h("tr", {},
        h("td", {}, String(r.number)), h("td", { class: "nowrap" }, new Date(r.time).toLocaleString()), h("td", { class: "mono" }, r.hash.slice(0, 8)),
        h("td", {}, r.error ? h("span", { class: "bad", title: r.error }, "refused") : r.inForce ? h("span", { class: "good" }, "in force") : "was in force", r.of ? `, brought back ${r.of}` : null),
        h("td", { title: all.join("\n") }, all.length ? all.slice(0, 3).join(", ") + (all.length > 3 || r.changes.more ? ` and ${all.length - Math.min(3, all.length) + (r.changes.more ?? 0)} more` : "") : "–"),
        h("td", { class: "nowrap num" },
          r.kept && before && !r.error && h("button", { type: "button", class: "quiet", "data-diff": before.number + " " + r.number }, "what changed"),
          r.kept && !r.inForce && !r.error && h("button", { type: "button", class: "quiet", "data-back": r.number }, "bring back")));
    })));
}

function findingsTable(list) {
  const rows = list.slice(0, findingsAtMost);
  return [h("table", {},
    h("thead", {}, h("tr", {}, ["severity", "where", "what", "message"].map((n) => h("th", {}, n)))),
    h("tbody", {}, rows.map((f) => h("tr", {},
      h("td", { class: f.severity === "warning" ? "warn" : "dim" }, f.severity), h("td", { class: "mono", title: f.file }, f.file.split("/").at(-1) + (f.line ? ":" + f.line : "")),
      h("td", {}, f.kind + (f.name ? ` ${f.namespace}/${f.name}` : "")), h("td", {}, f.field && [h("code", {}, f.field), ": "], f.message))))),
  list.length > rows.length && h("p", { class: "dim" }, `and ${list.length - rows.length} more: isthmus validate lists all`)];
}

function difference(d) {
  if (d.lines.length === 0) return "Nothing.";
  return d.lines.map((c) => [h("h3", {}, c.resource), h("p", { class: "dim mono" }, c.source),
    h("pre", { class: "diff" }, c.lines.map((l) => h("span", { class: l[0] === "+" ? "good" : l[0] === "-" ? "bad" : null }, l + "\n")))]);
}
