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

// keep has el contain something else, by changing no more of it than has changed: a
// reader's selection and focus stay where they are, though figures beside them
// move. Whoever listens within it has to be the same all along.
export function keep(el, ...children) {
  become(el, fill(el.cloneNode(false), {}, children));
}

function become(el, next) {
  const wanted = [...next.childNodes];
  wanted.forEach((want, i) => {
    const there = el.childNodes[i];
    if (!there) el.append(want);
    else if (there.isEqualNode(want)) return;
    else if (there instanceof Text && want instanceof Text) there.data = want.data;
    else if (alike(there, want)) { dress(there, want); become(there, want); } else there.replaceWith(want);
  });
  while (el.childNodes.length > wanted.length) el.lastChild.remove();
}

// alike: one may become the other. Rows of a list are what they are of.
const alike = (a, b) => a instanceof Element && a.nodeName === b.nodeName && a.dataset.i === b.dataset?.i;

function dress(el, next) {
  for (const { name } of [...el.attributes]) if (name !== "style" && !next.hasAttribute(name)) el.removeAttribute(name);
  for (const { name, value } of next.attributes) if (name !== "style" && el.getAttribute(name) !== value) el.setAttribute(name, value);
  if (el.style.cssText !== next.style.cssText) el.style.cssText = next.style.cssText; // the policy lets no attribute do so
}
