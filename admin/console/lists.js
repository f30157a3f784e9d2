// The pages that are a search and a long list.
import { h, keep } from "./dom.js";
import { age, amount, count, level, millis, rate, success } from "./format.js";
import { list } from "./list.js";

const state = (kind, text) => h("span", { class: "state " + kind }, text);
const short = (hash) => (hash ? hash.slice(0, 8) : "–");

const traffic = [
  { name: "requests/s", width: "84px", num: true, min: 560, sort: "requests", cell: (r) => (r.requests ? rate(r.requests) : "–") },
  { name: "success", width: "76px", num: true, sort: "errors", cell: (r) => h("span", { class: level(r) }, success(r)) },
  { name: "p50", width: "66px", num: true, min: 980, cell: (r) => (r.requests ? millis(r.p50) : "–") },
  { name: "p99", width: "66px", num: true, min: 760, sort: "p99", cell: (r) => (r.requests ? millis(r.p99) : "–") },
];
const unsorted = traffic.map(({ sort, ...column }) => column);

function health(r) {
  if (r.endpoints === 0) return state("off", "none known");
  if (r.healthy === r.endpoints) return state("good", count(r.endpoints, "endpoint"));
  return state(r.healthy ? "warn" : "bad", `${amount(r.healthy)} of ${count(r.endpoints, "endpoint")}`);
}

const destination = (d) => {
  const name = d.host + (d.port ? ":" + d.port : "") + (d.subset ? " " + d.subset : "");
  if (!d.known) return name + " unknown";
  return `${name}${d.standby ? " standby" : d.percent < 100 ? ` ${Math.round(d.percent)} %` : ""} (${d.usable}/${d.endpoints})`;
};

export const lists = {
  services: {
    path: "/services", search: "a service, a cluster", empty: "No service is known yet.", sortable: true,
    key: (r) => r.name,
    story: (r) => [h("a", { href: "#/endpoints?service=" + encodeURIComponent(r.name) }, "Its endpoints"), " · ", h("a", { href: "#/routes?q=" + encodeURIComponent(r.name.split(".")[0]) }, "its routes")],
    columns: [
      { name: "service", width: "minmax(150px, 2.2fr)", sort: "name", cell: (r) => r.name },
      { name: "endpoints", width: "minmax(120px, 1fr)", cell: health },
      { name: "by cluster", width: "minmax(140px, 2fr)", min: 900, cell: (r) => h("span", { class: "tags" }, r.clusters.filter((c) => c.endpoints).sort((a, b) => (a.healthy === a.endpoints) - (b.healthy === b.endpoints)).map((c) => h("span", { class: "tag " + (c.healthy === 0 ? "bad" : c.healthy < c.endpoints ? "warn" : "good") }, `${c.cluster} ${c.healthy < c.endpoints ? c.healthy + "/" : ""}${c.endpoints}`))) },
      ...traffic,
    ],
  },
  endpoints: {
    path: "/endpoints", search: "a service, an address, a cluster, a reason, label=value", empty: "No endpoint is known yet.",
    toggle: { name: "only those that cannot serve", query: { healthy: "false" } },
    key: (r) => r.address,
    columns: [
      { name: "service", width: "minmax(130px, 2fr)", cell: (r) => r.service + ":" + r.port },
      { name: "address", width: "minmax(120px, 1.2fr)", mono: true, cell: (r) => r.address },
      { name: "cluster", width: "minmax(80px, 1fr)", min: 620, cell: (r) => r.cluster },
      { name: "locality", width: "minmax(90px, 1.3fr)", min: 1080, cell: (r) => r.locality || "–" },
      { name: "health", width: "minmax(90px, 2.4fr)", cell: (r) => (r.healthy ? state("good", "serves") : h("span", { class: "state bad", title: r.reason }, r.reason)) },
      { name: "from", width: "74px", min: 820, cell: (r) => r.source },
      { name: "age", width: "56px", num: true, min: 720, cell: (r) => age(r.age) },
    ],
  },
  routes: {
    path: "/routes", search: "a host, a path, a destination, a file", empty: "There is no route.",
    key: (r) => r.host,
    columns: [
      { name: "listener", width: "minmax(76px, .6fr)", min: 620, cell: (r) => r.listener },
      { name: "host", width: "minmax(140px, 2.6fr)", cell: (r) => r.host },
      { name: "match", width: "minmax(90px, 1.6fr)", min: 860, cell: (r) => r.match || "all" },
      { name: "to", width: "minmax(140px, 3fr)", cell: (r) => h("span", { class: r.destinations.some((d) => !d.known || (!d.usable && !d.standby)) ? "warn" : null, title: r.destinations.map(destination).join("\n") }, r.destinations.map(destination).join(", ") || r.name) },
      { name: "from", width: "minmax(90px, 1.2fr)", min: 1080, mono: true, cell: (r) => (r.source ? h("span", { title: r.source }, r.source.split("/").at(-1)) : h("span", { class: "dim" }, "every service")) },
    ],
  },
  members: {
    path: "/members", query: { digest: "1" }, search: "a name, a cluster, a state, a configuration", empty: "This proxy does not gossip.",
    key: (r) => r.name,
    columns: [
      { name: "member", width: "minmax(150px, 2fr)", cell: (r) => r.name },
      { name: "state", width: "minmax(96px, 1.1fr)", cell: memberState },
      { name: "address", width: "minmax(120px, 1fr)", mono: true, min: 1080, cell: (r) => r.address || "–" },
      { name: "configuration", width: "minmax(110px, 1fr)", mono: true, min: 620, cell: (r) => (r.digest ? short(r.digest.hash) : "–") },
      { name: "certificate", width: "84px", min: 980, cell: certificate },
      ...unsorted.map((c) => ({ ...c, cell: (r) => c.cell(totalOf(r.digest)) })),
      { name: "version", width: "minmax(70px, .6fr)", min: 1180, cell: (r) => r.version || "–" },
    ],
  },
  limits: {
    path: "/limits", search: "a limit, a kind, a host, a file, what is wrong", empty: "There is no rate limit.",
    key: (r) => r.name,
    columns: [
      { name: "limit", width: "minmax(150px, 2.4fr)", cell: (r) => r.name },
      { name: "kind", width: "minmax(70px, .8fr)", min: 620, cell: (r) => r.kind + (r.off ? ", off" : "") + (r.shadow ? ", only counts" : "") + (r.candidate ? ", the candidate's" : "") },
      { name: "where", width: "minmax(90px, 1.4fr)", min: 980, cell: (r) => r.where || "everywhere" },
      { name: "state", width: "minmax(80px, 1.2fr)", cell: (r) => (r.state ? state("warn", r.state) : state("good", "works")) },
      { name: "left", width: "84px", num: true, min: 760, cell: left },
      { name: "allowed", width: "84px", num: true, min: 560, cell: (r) => amount(r.allowed) },
      { name: "refused", width: "76px", num: true, cell: (r) => h("span", { class: r.refused ? "warn" : null }, amount(r.refused)) },
      { name: "unknown", width: "76px", num: true, min: 980, cell: (r) => h("span", { class: r.failed ? "warn" : null }, amount(r.failed)) },
    ],
  },
  failures: {
    path: "/why", search: "an id, a host, a path, a status, a flag, an address, a word of why", empty: "No request has failed, was refused or was slow.",
    key: (r) => (r.status || "no answer") + " " + r.method + " " + r.authority + r.path,
    story: why, told: ["why", "attempts"],
    columns: [
      { name: "when", width: "84px", cell: (r) => h("span", { title: r.time }, when(new Date(r.time))) },
      { name: "status", width: "88px", cell: (r) => h("span", { class: r.status >= 500 || r.status === 0 ? "bad" : "warn" }, r.status || "none", r.flags !== "-" && h("span", { class: "dim" }, " " + r.flags)) },
      { name: "request", width: "minmax(150px, 2fr)", cell: (r) => r.method + " " + r.authority + r.path },
      { name: "why", width: "minmax(150px, 4fr)", min: 620, cell: (r) => r.why.slice(1).join("; ") || r.why[0] },
      { name: "took", width: "64px", num: true, min: 820, cell: (r) => millis(1000 * r.duration) },
    ],
  },
  certificates: {
    path: "/certificates", search: "a name, a file, what is wrong with it", empty: "This proxy has no certificate.",
    key: (r) => r.name,
    columns: [
      { name: "certificate", width: "minmax(140px, 2fr)", cell: (r) => r.name },
      { name: "ends", width: "minmax(150px, 1.2fr)", cell: ends },
      { name: "", width: "minmax(150px, 1fr)", min: 760, cell: (r) => (r.ends ? new Date(r.ends).toLocaleString() : "–") },
      { name: "in force", width: "minmax(140px, 2fr)", cell: (r) => (r.usable ? "as its files are" : h("span", { class: r.ends ? "warn" : "bad", title: r.error }, (r.ends ? "an earlier one" : "none") + ": its files cannot be used")) },
    ],
  },
};

// when says the time of what was lately, and else the day: where few fail, the
// latest are old.
const when = (at) => (Date.now() - at < 12 * 3600e3 ? at.toLocaleTimeString([], { hour12: false }) : at.toLocaleDateString());

// left is what a limit's bucket has, of as much as it can have.
function left(r) {
  const b = r.buckets?.find((b) => b.remaining !== undefined);
  return b ? `${amount(Math.trunc(b.remaining))}/${amount(b.limit)}` : "–";
}

// why tells the story of a request that failed, before all that is known of it.
function why(r) {
  const line = (a) => `${a.endpoint} in ${a.cluster || "–"}, after ${millis(1000 * a.began)} for ${millis(1000 * a.took)}: ${[a.status, a.failure, a.cause].filter(Boolean).join(", ")}`;
  return [
    h("p", {}, h("b", {}, r.why[0])), h("ul", {}, r.why.slice(1).map((w) => h("li", {}, w))),
    r.attempts.length > 0 && [h("h3", {}, "Tries"), h("ol", {}, r.attempts.map((a) => h("li", {}, line(a))))],
    h("p", {}, "Ask the other proxies on its way, too: ", h("code", {}, "isthmus why " + r.id)),
  ];
}

function memberState(r) {
  const d = r.digest;
  if (r.state !== "alive") return state(r.state === "dead" ? "bad" : "off", r.state);
  if (!d) return state("off", "alive, says nothing");
  if (d.refused) return state("warn", "its files are refused");
  if (!d.ready) return state("warn", "not ready");
  return d.shed ? state("warn", "sheds load") : state("good", "ready");
}

function ends(r) {
  if (!r.ends) return state("bad", "cannot be used");
  const left = (new Date(r.ends) - Date.now()) / 1000;
  return state(left < 3600 ? "bad" : left < 6 * 3600 ? "warn" : "good", left < 0 ? age(-left) + " ago" : "in " + age(left));
}

function certificate(r) {
  if (!r.digest?.certificateEnds) return "–";
  const left = r.digest.certificateEnds - Date.now() / 1000;
  return h("span", { class: left < 3600 ? "bad" : left < 6 * 3600 ? "warn" : null }, left < 0 ? "has ended" : age(left));
}

function totalOf(d) {
  const t = { requests: 0, errors: 0, p50: 0, p99: 0 };
  for (const f of d?.flows ?? []) {
    if (f.service && !f.inbound) continue;
    const all = t.requests + f.requests;
    if (all) t.p50 = (t.p50 * t.requests + f.p50 * f.requests) / all;
    t.requests = all; t.errors += f.errors; t.p99 = Math.max(t.p99, f.p99);
  }
  return t;
}

// listPage makes the page: go changes the address, and with it the query.
export function listPage(kind, { go, open }) {
  const of = lists[kind];
  let query = {};
  const total = h("span", { class: "dim", role: "status" });
  const search = of.search && h("input", { type: "search", placeholder: "Search: " + of.search, "aria-label": "Search", spellcheck: "false", autocomplete: "off" });
  const toggle = of.toggle && h("input", { type: "checkbox" });
  const narrowed = h("button", { type: "button", hidden: true });
  const rows = list({ ...of, open: (r, title) => open(r, title, of.story?.(r), of.told) });
  const root = h("div", {}, h("div", { class: "tools" }, search, toggle && h("label", {}, toggle, of.toggle.name), narrowed, total), rows.root);

  rows.onTotal = (n) => keep(total, amount(n));
  rows.onSort = (sort) => go({ ...query, sort });
  let timer;
  search?.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => go({ ...query, q: search.value }), 150);
  });
  toggle?.addEventListener("change", () => go({ ...query, ...Object.fromEntries(Object.entries(of.toggle.query).map(([k, v]) => [k, toggle.checked ? v : ""])) }));
  narrowed.addEventListener("click", () => go({ ...query, service: "" }));

  return {
    root, search, list: rows,
    show(next) {
      query = next;
      if (search && search.value !== (query.q ?? "")) search.value = query.q ?? "";
      if (toggle) toggle.checked = Object.entries(of.toggle.query).every(([k, v]) => query[k] === v);
      narrowed.hidden = !query.service;
      keep(narrowed, `only ${query.service}  ✕`);
      rows.ask({ ...query, ...of.query });
    },
    update: () => rows.refresh(),
    resize: () => rows.resize(),
  };
}
