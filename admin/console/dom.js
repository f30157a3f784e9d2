// Making elements. Whatever text comes from the mesh goes in as text, never as
// markup.

const svgNames = "http://www.w3.org/2000/svg";

function fill(el, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) el.addEventListener(name.slice(2), value);
    else el.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== undefined && child !== null && child !== false) el.append(child instanceof Node ? child : String(child));
  }
  return el;
}

export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
export const s = (name, attributes, ...children) => fill(document.createElementNS(svgNames, name), attributes, children);

// keep replaces what el contains, unless it would look the same: a reader's
// selection and focus stay.
export function keep(el, ...children) {
  const next = fill(el.cloneNode(false), {}, children);
  if (!next.isEqualNode(el)) el.replaceChildren(...next.childNodes);
}
