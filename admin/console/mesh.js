// The first page: what is wrong, the clusters, and how requests go.
import { h, keep, s } from "./dom.js";
import { count, level, millis, rate, success } from "./format.js";
import { map } from "./map.js";

const problemsAtFirst = 6;

export function meshPage() {
  const problems = h("ul", { class: "problems", "aria-label": "What is wrong" });
  const picture = h("div", { class: "map" }), own = h("div", { class: "figures" });
  const clusters = h("div", { class: "scroll" }), links = h("div", { class: "scroll" });
  const root = h("div", {}, problems,
    h("section", { class: "panel" }, h("h2", {}, "Clusters, and what they send to each other"), picture),
    h("section", { class: "panel" }, h("h2", {}, "This proxy"), own),
    h("div", { class: "columns" },
      h("section", { class: "panel" }, h("h2", {}, "Clusters"), clusters),
      h("section", { class: "panel" }, h("h2", {}, "Links"), links)));
  let all = false, last = null, width = 0;

  problems.addEventListener("click", (e) => {
    if (e.target.closest("button")) { all = true; update(last); }
  });

  function update(mesh) {
    last = mesh;
    keep(problems, problemRows(mesh.problems, all));
    width = picture.clientWidth || width || 900;
    keep(picture, map(mesh, width));
    keep(own, figures(mesh));
    keep(clusters, clusterTable(mesh.clusters));
    keep(links, linkTable(mesh.links));
  }
  return { root, update, resize: () => last && update(last) };
}

function problemRows(problems, all) {
  if (problems.length === 0) {
    return h("li", {}, h("span", { class: "calm" }, h("span", { class: "mark" }, "✓"), "Nothing is wrong, as far as this proxy knows."));
  }
  const shown = all ? problems : problems.slice(0, problemsAtFirst);
  const rows = shown.map((p) => h("li", { class: p.severity }, h("a", { href: "#/" + p.page + (p.search ? "?q=" + encodeURIComponent(p.search) : "") },
    h("span", { class: "mark", title: p.severity }, p.severity === "critical" ? "■" : "▲"), h("span", {}, p.text))));
  if (problems.length > shown.length) rows.push(h("li", {}, h("button", { type: "button" }, `${problems.length - shown.length} more`)));
  return rows;
}

function figures(mesh) {
  const t = mesh.own;
  const figure = (value, name, kind) => h("div", { class: "figure" }, h("b", { class: kind }, value), h("span", {}, name));
  return [
    figure(rate(t.requests), "requests a second"), figure(success(t), "succeed", level(t)),
    figure(t.requests ? millis(t.p50) : "–", "half of them within"), figure(t.requests ? millis(t.p99) : "–", "99 % within"),
    spark(mesh.history),
  ];
}

// spark draws the last five minutes, a point for two seconds: requests as a line, errors as bars below it.
function spark(points) {
  if (points.length < 2) return null;
  const top = Math.max(1, ...points.map((p) => p.requests)), slots = 150, height = 48, from = slots - points.length;
  const x = (i) => from + i, y = (n) => (height - 2 - (height - 6) * (n / top)).toFixed(1);
  const line = points.map((p, i) => x(i) + "," + y(p.requests)).join(" ");
  return h("div", { class: "sparkbox" },
    s("svg", { class: "spark", viewBox: `0 0 ${slots - 1} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `Requests of the last minutes, ${rate(top)} a second at most` },
      s("polygon", { class: "area", points: `${from},${height} ${line} ${slots - 1},${height}` }),
      s("polyline", { class: "line", points: line }),
      points.map((p, i) => p.errors > 0 && s("rect", { class: "errors", x: x(i) - 0.5, y: y(p.errors), width: 1, height: height - y(p.errors) }))),
    h("div", { class: "ends" }, h("span", {}, "5 min ago"), h("span", {}, rate(top) + "/s at most"), h("span", {}, "now")));
}

const quantiles = (t) => [h("td", { class: "num" }, t.requests ? millis(t.p50) : "–"), h("td", { class: "num" }, t.requests ? millis(t.p99) : "–")];
const trafficHead = ["requests/s", "success", "p50", "p99"].map((n) => h("th", { class: "num" }, n));
const trafficCells = (t) => [h("td", { class: "num" }, t.requests ? rate(t.requests) : "–"), h("td", { class: "num " + level(t) }, success(t)), quantiles(t)];

function clusterTable(clusters) {
  return h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "cluster"), h("th", {}, "proxies"), h("th", {}, "endpoints"), trafficHead.map((n) => n.cloneNode(true)))),
    h("tbody", {}, clusters.map((c) => h("tr", {},
      h("td", {}, h("a", { href: "#/services?q=" + encodeURIComponent(c.name) }, c.name)),
      h("td", { class: c.dead || c.ready + c.silent < c.proxies ? "warn" : null }, c.ready < c.proxies ? `${c.ready} of ${c.proxies} ready` : String(c.proxies), c.silent ? `, ${c.silent} not heard of late` : null, c.dead ? `, ${c.dead} dead` : null),
      h("td", { class: c.healthy === 0 && c.endpoints ? "bad" : c.healthy < c.endpoints ? "warn" : null }, c.healthy < c.endpoints ? `${c.healthy} of ${c.endpoints}` : String(c.endpoints)),
      trafficCells(c.traffic)))));
}

function linkTable(links) {
  if (links.length === 0) return h("p", { class: "dim" }, "No requests of late, as far as proxies have told by gossip.");
  return h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "from"), h("th", {}, "to"), trafficHead.map((n) => n.cloneNode(true)))),
    h("tbody", {}, links.map((l) => h("tr", {}, h("td", {}, l.from), h("td", { class: l.to ? null : "dim" }, l.to || "no endpoint"), trafficCells(l)))));
}

export const badge = (mesh) => {
  const critical = mesh.problems.some((p) => p.severity === "critical");
  return mesh.problems.length ? { text: String(mesh.problems.length), kind: critical ? "bad" : "warn", title: count(mesh.problems.length, "problem") } : null;
};
