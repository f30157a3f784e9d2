// Numbers as people read them; admin/mesh.go and "isthmus top" write them alike.

export function rate(n) {
  if (!n) return "0";
  if (n >= 99.95) return n.toFixed(0).replace(/\B(?=(\d{3})+$)/g, "\u2009");
  return n.toFixed(n >= 9.995 ? 1 : 2);
}

export function success(t) {
  if (!t.requests) return "–";
  if (!t.errors) return "100 %";
  const good = 100 * (1 - t.errors / t.requests);
  return good > 99.99 ? "99.99 %" : good.toFixed(2) + " %";
}

export function millis(ms) {
  if (ms < 1) return Math.round(1000 * ms) + " µs";
  if (ms < 10) return ms.toFixed(1) + " ms";
  return ms < 1000 ? Math.round(ms) + " ms" : (ms / 1000).toFixed(1) + " s";
}

export function age(seconds) {
  const s = Math.max(0, Math.trunc(seconds));
  if (s < 120) return s + " s";
  if (s < 7200) return Math.trunc(s / 60) + " min";
  if (s < 48 * 3600) return Math.trunc(s / 3600) + " h";
  return Math.trunc(s / 86400) + " d";
}

// level tells how bad a share of failed requests is, as admin/problem.go does.
export function level(t) {
  const share = t.requests ? t.errors / t.requests : 0;
  return share >= 0.05 ? "bad" : share >= 0.01 ? "warn" : "";
}

export const amount = (n) => n.toLocaleString("en").replaceAll(",", "\u2009");

export const count = (n, noun) => n === 1 ? "1 " + noun : amount(n) + " " + noun.replace(/y$/, "ie") + "s";
