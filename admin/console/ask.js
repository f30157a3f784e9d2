// Asking the proxy, which answers from its memory: what takes longer than this
// is no answer any more.
const patience = 5000;

async function send(path, options) {
  const response = await fetch(path, { ...options, signal: AbortSignal.timeout(patience), cache: "no-store" });
  if (!response.ok) throw new Error((await response.text()).trim() || response.statusText);
  return response;
}

const withFormat = (path) => path + (path.includes("?") ? "&" : "?") + "format=json";

export async function ask(path) {
  return (await send(withFormat(path))).json();
}

// part asks for a part of a list, and how long all of it is.
export async function part(path, query, offset, limit) {
  const q = new URLSearchParams({ ...query, offset, limit });
  const response = await send(withFormat(path + "?" + q));
  return { total: Number(response.headers.get("X-Total-Count")), rows: await response.json() };
}

export const act = (path) => send(path, { method: "POST" });
