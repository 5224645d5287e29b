// What the page shows, as a permalink keeps it. What an address says is checked, never trusted.

const CHOICES = {
  quantity: ['picture', 'x', 'mean_a', 'difference'],
  attention: ['learned', 'off', 'teacher'],
  by: ['teacher', 'taught', 'plain'],  // whose list of people `person` counts in
};
const RANGES = { scene: [0, 999, 1], person: [0, 99, 1], level: [0, 2, 1],
  opacity: [0, 1, 0.05], score: [0.05, 0.95, 0.05] };
export const DEFAULTS = { scene: 0, by: 'teacher', person: 0, quantity: 'picture',
  attention: 'learned', level: 2, opacity: 0.6, score: 0.5 };

function sound(name, text) {
  if (name in CHOICES) return CHOICES[name].includes(text) ? text : undefined;
  const [low, high, step] = RANGES[name], v = Number(text);
  if (text.trim() === '' || !(v >= low && v <= high)) return undefined;
  return Number((Math.round(v / step) * step).toFixed(2));
}

// state of an address' query string, and the names in it that mean nothing here
export function fromQuery(query, scenes = 1000) {
  const state = { ...DEFAULTS }, ignored = [];
  for (const [name, text] of new URLSearchParams(query)) {
    const value = name in DEFAULTS ? sound(name, text) : undefined;
    if (value === undefined || (name === 'scene' && value >= scenes)) ignored.push(name);
    else state[name] = value;
  }
  return { state, ignored };
}

// only what differs from the start
export function toQuery(state) {
  const changed = Object.keys(DEFAULTS).filter(k => state[k] !== DEFAULTS[k]);
  const text = new URLSearchParams(changed.map(k => [k, state[k]])).toString();
  return text && `?${text}`;
}
