// A long list: only the rows in view are there, and only their part of the list
// is asked for, so ten thousand are as light as ten.
import { part } from "./ask.js";
import { h, keep } from "./dom.js";

const rowHeight = 30; // --row in style.css
const chunk = 100; // rows asked for at once
const overscan = 6; // rows made above and below the window

// list makes one: columns are {name, width, cell(row), min, sort}, where min is
// the width of the window in pixels below which a column is left out.
export function list({ path, columns, key, open, empty }) {
  let query = {}, total = null, selected = -1, generation = 0, error = "";
  const chunks = new Map(); // number -> rows
  const asked = new Set();
  const head = h("div", { class: "head", role: "row" });
  const sheet = h("div", { class: "sheet", role: "presentation" });
  const frame = h("div", { class: "window", tabindex: "0", role: "rowgroup", "aria-label": "Rows" }, sheet);
  const root = h("div", { class: "list", role: "table" }, head, frame);
  let shown = columns, template = "";

  const row = (i) => chunks.get(Math.trunc(i / chunk))?.[i % chunk];

  function layOut() {
    shown = columns.filter((c) => innerWidth >= (c.min ?? 0));
    template = shown.map((c) => c.width).join(" ");
    head.style.gridTemplateColumns = template;
    keep(head, shown.map((c) => h("span", { role: "columnheader", class: c.num ? "num" : "" }, c.sort
      ? h("button", { type: "button", "data-sort": c.sort, "aria-pressed": String((query.sort ?? "") === c.sort) }, c.name)
      : c.name)));
    const top = frame.getBoundingClientRect().top;
    frame.style.height = Math.max(180, innerHeight - top - 22) + "px";
  }

  async function load(n, again) {
    if (asked.has(n) || (chunks.has(n) && !again)) return;
    asked.add(n);
    const mine = generation;
    try {
      const got = await part(path, query, n * chunk, chunk);
      if (mine !== generation) return;
      error = "";
      chunks.set(n, got.rows);
      total = got.total;
      api.onTotal?.(total);
    } catch (e) {
      if (mine !== generation) return;
      error = e.message;
    } finally {
      if (mine === generation) asked.delete(n);
    }
    draw();
  }

  const inView = () => {
    const first = Math.max(0, Math.trunc(frame.scrollTop / rowHeight) - overscan);
    const last = Math.min(total ?? chunk, Math.ceil((frame.scrollTop + frame.clientHeight) / rowHeight) + overscan);
    return [first, last];
  };

  // refresh asks anew for what is in view, and forgets the rest.
  function refresh() {
    const [first, last] = inView();
    const from = Math.trunc(first / chunk), to = Math.trunc(Math.max(first, last - 1) / chunk);
    for (const n of chunks.keys()) if (n < from || n > to) chunks.delete(n);
    for (let n = from; n <= to; n++) load(n, true);
  }

  function draw() {
    sheet.style.height = (total ?? 0) * rowHeight + "px";
    root.setAttribute("aria-rowcount", total ?? -1);
    const [first, last] = inView();
    const rows = [];
    for (let i = first; i < last; i++) {
      const r = row(i);
      if (!r) { if (!error) load(Math.trunc(i / chunk)); continue; } // refresh asks again, in two seconds
      const item = h("div", { class: "item" + (i === selected ? " on" : ""), role: "row", "aria-rowindex": i + 1, "aria-selected": i === selected ? "true" : "false", "data-i": i },
        shown.map((c) => {
          const cell = c.cell(r);
          return h("span", { role: "cell", class: [c.num && "num", c.mono && "mono"].filter(Boolean).join(" ") || null, title: typeof cell === "string" && cell.length > 14 ? cell : null }, cell);
        }));
      item.style.gridTemplateColumns = template;
      item.style.top = i * rowHeight + "px";
      rows.push(item);
    }
    if (error) rows.push(h("div", { class: "empty bad" }, error));
    else if (total === 0) rows.push(h("div", { class: "empty" }, Object.values(query).some(Boolean) ? "Nothing is like that." : empty));
    keep(sheet, rows);
  }

  function choose(i) {
    if (!total) return;
    selected = Math.min(total - 1, Math.max(0, i));
    const top = selected * rowHeight;
    if (top < frame.scrollTop) frame.scrollTop = top;
    else if (top + rowHeight > frame.scrollTop + frame.clientHeight) frame.scrollTop = top + rowHeight - frame.clientHeight;
    draw();
  }

  frame.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  frame.addEventListener("click", (e) => {
    const item = e.target.closest(".item");
    if (!item || e.target.closest("a") || String(getSelection())) return;
    choose(Number(item.dataset.i));
    api.enter();
  });
  head.addEventListener("click", (e) => {
    const by = e.target.closest("button")?.dataset.sort;
    if (by) api.onSort?.(query.sort === by ? "" : by);
  });

  const api = {
    root, refresh,
    ask(next) {
      generation++;
      query = Object.fromEntries(Object.entries(next).filter(([, v]) => v));
      chunks.clear(); asked.clear(); selected = -1; total = null;
      frame.scrollTop = 0;
      layOut(); load(0);
    },
    resize() { layOut(); draw(); },
    move(by) { choose(selected < 0 ? Math.trunc(frame.scrollTop / rowHeight) : selected + by); },
    enter() { const r = row(selected); if (r) open?.(r, key(r)); return !!r; },
  };
  return api;
}
