// What the page shows, as a permalink keeps it. What an address says is checked, never trusted.

const CHOICES = {
  quantity: ['picture', 'x', 'mean_a', 'difference'],
  attention: ['learned', 'off', 'teacher'],
  by: ['teacher', 'taught', 'plain'],  // whose list of people `person` counts in
};
const RANGES = { scene: [0, 999, 1], person: [0, 99, 1], level: [0, 2, 1],
  opacity: [0, 1, 0.05], score: [0.05, 0.95, 0.05] };
const BOX = /^\d{1,4}(,\d{1,4}){3}$/;  // left, top, right, bottom, px
const RUNTIMES = ['wasm', 'webgpu'];  // else the best there is
export const DEFAULTS = { scene: 0, by: 'teacher', person: 0, quantity: 'picture',
  attention: 'learned', level: 2, opacity: 0.6, score: 0.5, at: '' };

function isBox(text) {
  const [x1, y1, x2, y2] = text.split(',').map(Number);
  return BOX.test(text) && x1 < x2 && y1 < y2;
}

function sound(name, text) {
  if (name === 'at') return isBox(text) ? text : undefined;
  if (Object.hasOwn(CHOICES, name)) return CHOICES[name].includes(text) ? text : undefined;
  const [low, high, step] = RANGES[name], v = Number(text);
  if (text.trim() === '' || !(v >= low && v <= high)) return undefined;
  return Number((Math.round(v / step) * step).toFixed(2));
}

// of an address' query string: state, names that mean nothing here, and the wanted runtime
export function fromQuery(query, scenes = 1000) {
  const state = { ...DEFAULTS }, ignored = [];
  let runtime = '';
  for (const [name, text] of new URLSearchParams(query)) {
    const value = Object.hasOwn(DEFAULTS, name) ? sound(name, text) : undefined;
    if (name === 'runtime' && RUNTIMES.includes(text)) runtime = text;
    else if (value === undefined || (name === 'scene' && value >= scenes)) ignored.push(name);
    else state[name] = value;
  }
  return { state, ignored, runtime };
}

// only what differs from the start
export function toQuery(state, runtime = '') {
  const said = Object.keys(DEFAULTS).filter(k => state[k] !== DEFAULTS[k]).map(k => [k, state[k]]);
  if (runtime) said.push(['runtime', runtime]);
  const text = new URLSearchParams(said).toString();
  return text && `?${text}`;
}
