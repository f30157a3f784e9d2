// The frame: which page is shown, asking the proxy every two seconds, keys.
import { ask } from "./ask.js";
import { configurationPage } from "./configuration.js";
import { h, keep } from "./dom.js";
import { age, amount, millis } from "./format.js";
import { listPage, lists } from "./lists.js";
import { badge, meshPage } from "./mesh.js";

const interval = 2000;
const byId = (id) => document.getElementById(id);
const main = byId("main"), detail = byId("detail");
const made = new Map(); // pages that were shown once
let page = null, name = "", mesh = null, answered = 0, timer;

// The address says which page is shown, and of what: #/endpoints?q=orders.
function address() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path || "mesh", query: Object.fromEntries(new URLSearchParams(search)) };
}

function go(path, query = {}, replace = false) {
  const search = new URLSearchParams(Object.entries(query).filter(([, v]) => v)).toString();
  const hash = "#/" + path + (search ? "?" + search : "");
  if (replace) { history.replaceState(null, "", hash); show(); } else location.hash = hash;
}

function make(path) {
  if (path === "configuration") return configurationPage({ open });
  if (lists[path]) return listPage(path, { go: (query) => go(path, query, true), open });
  return meshPage();
}

function show() {
  let { path, query } = address();
  if (path !== "configuration" && !Object.hasOwn(lists, path)) path = "mesh";
  if (mesh && !mesh.pages.includes(path)) path = "mesh";
  if (path !== name) close();
  name = path;
  if (!made.has(path)) made.set(path, make(path));
  page = made.get(path);
  if (main.firstChild !== page.root) main.replaceChildren(page.root);
  document.body.classList.toggle("longlist", Boolean(lists[path]));
  page.show?.(query);
  if (mesh) draw();
}

// What is asked for anew: the mesh, and on the pages with a list what is in
// view of it. Nobody looks at a hidden page.
async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    mesh = await ask("/mesh");
    answered = Date.now();
    if (!mesh.pages.includes(name)) show(); else draw();
  } catch {
    // away says since when
  }
  away();
  timer = setTimeout(refresh, interval);
}

function draw() {
  const st = mesh.status;
  document.title = (mesh.problems.length ? `(${mesh.problems.length}) ` : "") + st.node + " · Isthmus";
  keep(byId("node"), st.node);
  keep(byId("ready"), st.ready ? "ready" : st.reason || "not ready");
  byId("ready").className = "chip " + (st.ready ? "good" : "bad");
  keep(byId("snapshot"), `snapshot ${st.snapshot.number}, ${age(st.snapshot.age)} old`);
  tabs();
  page.update?.(mesh);
}

function tabs() {
  const number = { mesh: badge(mesh), endpoints: { text: amount(mesh.status.endpoints) }, members: mesh.status.members ? { text: String(mesh.status.members) } : null };
  keep(byId("tabs"), mesh.pages.map((p, i) => {
    const n = number[p];
    return h("a", { href: "#/" + p, "aria-current": p === name ? "page" : null, title: `${i + 1}` }, p[0].toUpperCase() + p.slice(1), n && h("span", { class: "n " + (n.kind ?? ""), title: n.title }, n.text));
  }));
}

function away() {
  const silent = Date.now() - answered > 2.5 * interval && answered > 0 || answered === 0;
  document.body.classList.toggle("away", silent && answered > 0);
  byId("away").hidden = !silent;
  keep(byId("away"), answered ? `This proxy does not answer. What is shown is of ${new Date(answered).toLocaleTimeString()}, ${age((Date.now() - answered) / 1000)} ago.` : "This proxy does not answer.");
  keep(byId("live"), silent ? "" : "live");
}

// All about one row.
function open(row, title, story, told = []) {
  keep(detail, h("div", { class: "top" }, h("b", {}, title), h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: close }, "✕")), story && h("div", { class: "story" }, story), row && facts(Object.fromEntries(Object.entries(row).filter(([k]) => !told.includes(k)))));
  detail.scrollTop = 0;
  detail.hidden = false;
}

function close() { detail.hidden = true; }

// facts shows whatever JSON says. Times are in seconds there, of traffic in
// milliseconds.
const times = { age, duration: (n) => millis(1000 * n), waited: (n) => millis(1000 * n), p50: millis, p99: millis, certificateEnds: (n) => new Date(1000 * n).toLocaleString() };

function facts(v) {
  if (Array.isArray(v)) return v.length ? v.map((x) => (typeof x === "object" ? facts(x) : [String(x), h("br")])) : "none";
  if (v === null || typeof v !== "object") return v === "" ? "–" : typeof v === "number" ? String(Math.round(v * 1000) / 1000) : String(v);
  return h("dl", { class: "facts" }, Object.entries(v).map(([k, x]) => [h("dt", {}, k), h("dd", {}, times[k] && typeof x === "number" ? times[k](x) : facts(x))]));
}

// Light and dark.
const themes = ["", "light", "dark"], themeNames = { "": "auto", light: "light", dark: "dark" };
const remembered = (() => { try { return localStorage ?? {}; } catch { return {}; } })(); // there is none where a browser keeps nothing
function theme(next) {
  document.documentElement.className = next;
  remembered.theme = next;
  keep(byId("theme"), themeNames[next]);
}
byId("theme").addEventListener("click", () => theme(themes[(themes.indexOf(document.documentElement.className) + 1) % themes.length]));
theme(themes.includes(remembered.theme) ? remembered.theme : "");
byId("help").addEventListener("click", () => byId("keys").showModal());

addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || byId("keys").open) return;
  const typing = e.target.matches("input");
  if (e.key === "Escape") {
    if (typing) { e.preventDefault(); e.target.blur(); } else close();
    return;
  }
  if (typing && !["ArrowDown", "ArrowUp", "Enter"].includes(e.key)) return;
  const pages = mesh?.pages ?? [];
  const beside = (by) => pages.length && go(pages[(pages.indexOf(name) + by + pages.length) % pages.length]);
  const keys = {
    "/": () => (page.search ? page.search.focus() : go("endpoints")), "?": () => byId("keys").showModal(), "[": () => beside(-1), "]": () => beside(1),
    j: () => page.list?.move(1), k: () => page.list?.move(-1), ArrowDown: () => page.list?.move(1), ArrowUp: () => page.list?.move(-1),
    Enter: () => { if (!page.list?.enter() && typing) e.target.blur(); },
  };
  if (e.key >= "1" && e.key <= "9") { if (pages[e.key - 1]) go(pages[e.key - 1]); return; }
  if (!keys[e.key] || (["ArrowDown", "ArrowUp"].includes(e.key) && !page.list)) return;
  if (e.key === "Enter" && e.target.closest("a, button")) return;
  e.preventDefault();
  keys[e.key]();
});
addEventListener("hashchange", show);
let resizing;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() => page?.resize?.(), 80); });
document.addEventListener("visibilitychange", () => !document.hidden && refresh());

show();
refresh();
