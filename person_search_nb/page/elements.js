// Making parts of a page.

const SVG = 'http://www.w3.org/2000/svg';

export function make(tag, parent, own = {}) {
  return Object.assign(parent.appendChild(document.createElement(tag)), own);
}

export function draw(tag, parent, attributes = {}) {  // an element of an SVG
  const e = parent.appendChild(document.createElementNS(SVG, tag));
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  return e;
}
