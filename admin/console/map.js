// The mesh as a picture: clusters, and what they send to each other.
import { h, s } from "./dom.js";
import { amount, count, level, millis, rate, success } from "./format.js";

const cardWidth = 196, cardHeight = 98;
const mapAtMost = 7; // more clusters are easier to read as a matrix

export function map(mesh, width) {
  const clusters = mesh.clusters;
  if (clusters.length > mapAtMost || (width < 640 && clusters.length > 2)) return matrix(mesh);
  const { height, at } = places(clusters, width);
  const links = new Map(mesh.links.map((l) => [l.from + "\0" + l.to, l]));
  const picture = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "The clusters and what they send to each other. The table below says the same." });
  const labels = [];
  const busiest = Math.max(1, ...mesh.links.map((l) => l.requests));
  clusters.forEach((a, i) => clusters.forEach((b, j) => {
    if (i === j) return;
    const link = links.get(a.name + "\0" + b.name);
    if (!link && i > j && !links.get(b.name + "\0" + a.name)) return; // nothing either way: one quiet track
    if (!link && links.get(b.name + "\0" + a.name)) return;
    const line = curve(at[i], at[j], link ? 22 : 0);
    if (!link) { picture.append(s("path", { class: "track", d: line.d, "stroke-dasharray": "2 6" })); return; }
    const kind = level(link) || (link.requests ? "" : "idle");
    const thick = 1.5 + 5 * Math.sqrt(link.requests / busiest);
    picture.append(s("g", { class: "link " + kind }, s("path", { d: line.d, "stroke-width": thick.toFixed(1) }), s("polygon", { points: line.arrow(6 + thick) })));
    labels.push({ link, kind, ...line.middle, down: width < 640 && (line.middle.x > width / 2 ? 17 : -17) });
  }));
  clusters.forEach((c, i) => picture.append(card(c, at[i], links.get(c.name + "\0" + c.name))));
  for (const l of labels) picture.append(label(l));
  return picture;
}

function places(clusters, width) {
  const n = clusters.length;
  if (n === 1) return { height: cardHeight + 40, at: [{ x: width / 2, y: cardHeight / 2 + 20 }] };
  if (n === 2 && width < 640) {
    const x = width / 2;
    return { height: 2 * cardHeight + 190, at: [{ x, y: cardHeight / 2 + 10 }, { x, y: 1.5 * cardHeight + 170 }] };
  }
  if (n === 2) {
    const inset = Math.max(cardWidth / 2 + 10, width * 0.2);
    return { height: cardHeight + 20, at: [inset, width - inset].map((x) => ({ x, y: cardHeight / 2 + 6 })) };
  }
  const height = n <= 4 ? 360 : n === 5 ? 420 : 500;
  const rx = Math.min(width / 2 - cardWidth / 2 - 10, 430), ry = height / 2 - cardHeight / 2 - 14;
  return {
    height, at: clusters.map((_, i) => {
      const angle = -Math.PI / 2 - Math.PI / n + (2 * Math.PI * i) / n;
      return { x: width / 2 + rx * Math.cos(angle), y: height / 2 + ry * Math.sin(angle) };
    }),
  };
}

// edge is where a line from a card's middle leaves it.
function edge(from, to) {
  const dx = to.x - from.x, dy = to.y - from.y;
  const k = Math.min(cardWidth / 2 / Math.max(Math.abs(dx), 1e-6), cardHeight / 2 / Math.max(Math.abs(dy), 1e-6));
  return { x: from.x + dx * k, y: from.y + dy * k };
}

function curve(a, b, bend) {
  const dx = b.x - a.x, dy = b.y - a.y, length = Math.hypot(dx, dy), nx = dy / length, ny = -dx / length;
  const shift = (p, by) => ({ x: p.x + nx * by, y: p.y + ny * by });
  const from = shift(edge(a, b), bend / 2), to = shift(edge(b, a), bend / 2);
  const control = shift({ x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 }, bend);
  const ux = to.x - control.x, uy = to.y - control.y, u = Math.hypot(ux, uy);
  const tip = (size) => {
    const e = { x: ux / u, y: uy / u };
    return [[to.x, to.y], [to.x - e.x * size - e.y * size * 0.5, to.y - e.y * size + e.x * size * 0.5], [to.x - e.x * size + e.y * size * 0.5, to.y - e.y * size - e.x * size * 0.5]]
      .map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" ");
  };
  const round = (p) => p.x.toFixed(1) + " " + p.y.toFixed(1);
  const end = { x: to.x - (ux / u) * 6, y: to.y - (uy / u) * 6 };
  return {
    d: `M${round(from)}Q${round(control)} ${round(end)}`, arrow: tip,
    middle: { x: (from.x + 2 * control.x + to.x) / 4 + nx * 12, y: (from.y + 2 * control.y + to.y) / 4 + ny * 12 },
  };
}

// label is a link's; down moves one of two apart that would cover each other.
function label({ link, kind, x, y, down }) {
  y += down || 0;
  const text = `${rate(link.requests)}/s  ·  ${success(link)}  ·  p99 ${millis(link.p99)}`;
  const width = text.length * 6.4 + 14;
  return s("g", { class: "label" },
    s("rect", { x: x - width / 2, y: y - 11, width, height: 22, rx: 11 }),
    s("text", { x, y: y + 4, "text-anchor": "middle", class: kind }, text),
    s("title", {}, `${link.from} → ${link.to}`));
}

function card(c, at, own) {
  const x = at.x - cardWidth / 2, y = at.y - cardHeight / 2, inner = cardWidth - 28;
  const none = c.endpoints > 0 && c.healthy === 0, gone = c.proxies === 0 && c.dead > 0;
  const share = c.endpoints ? c.healthy / c.endpoints : 0;
  const kind = none ? "none" : share < 1 ? "some" : "good";
  const proxies = gone ? "no proxy lives" : c.proxies === 0 ? "no proxy is known" : count(c.proxies, "proxy") + (c.dead ? `, ${c.dead} dead` : "");
  return s("a", { href: "#/endpoints?q=" + encodeURIComponent(c.name), class: ["card", c.own && "own", (none || gone) && "bad", gone && "gone"].filter(Boolean).join(" "), "aria-label": c.name },
    s("rect", { class: "body", x, y, width: cardWidth, height: cardHeight, rx: 9 }),
    s("text", { class: "name", x: x + 14, y: y + 24 }, c.name.length > 22 ? c.name.slice(0, 21) + "…" : c.name),
    c.own && s("text", { class: "small", x: x + cardWidth - 14, y: y + 24, "text-anchor": "end" }, "here"),
    s("text", { class: "small" + (gone || c.dead ? " bad" : ""), x: x + 14, y: y + 42 }, proxies),
    s("text", { class: "small", x: x + 14, y: y + 59 }, (c.healthy < c.endpoints ? amount(c.healthy) + " of " : "") + count(c.endpoints, "endpoint")),
    s("rect", { class: "bar-ground", x: x + 14, y: y + 67, width: inner, height: 4, rx: 2 }),
    c.healthy > 0 && s("rect", { class: "bar-" + kind, x: x + 14, y: y + 67, width: inner * share, height: 4, rx: 2 }),
    s("text", { class: "small", x: x + 14, y: y + 86 }, own ? `within ${rate(own.requests)}/s · ${success(own)}` : c.traffic.requests ? `gets ${rate(c.traffic.requests)}/s` : "no requests"),
  );
}

// matrix has the sender's row and the receiver's column.
function matrix(mesh) {
  const links = new Map(mesh.links.map((l) => [l.from + "\0" + l.to, l]));
  const names = mesh.clusters.map((c) => c.name);
  return h("div", { class: "scroll" }, h("table", { class: "matrix" },
    h("thead", {}, h("tr", {}, h("th", {}, "from \\ to"), names.map((n) => h("th", { class: "num" }, n)))),
    h("tbody", {}, names.map((from) => h("tr", {}, h("th", { scope: "row" }, from), names.map((to) => {
      const l = links.get(from + "\0" + to);
      return h("td", { class: l ? level(l) : "dim", title: l ? `${from} → ${to}: ${success(l)}, p99 ${millis(l.p99)}` : null }, l ? [rate(l.requests) + "/s", h("br"), h("span", { class: "dim" }, success(l))] : "·");
    })))),
  ));
}
