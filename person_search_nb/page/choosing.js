// Whom a key or the mouse means, among numbered boxes [x1, y1, x2, y2].

const STEP = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

export const moves = key => key in STEP || key === 'Home' || key === 'End';

// where a series of keys leads among n people; at: -1 for nobody
export function walk(keys, at, n) {
  return keys.reduce((c, k) => {
    if (k === 'Home') return 0;
    if (k === 'End') return n - 1;
    if (c < 0) return STEP[k] > 0 ? 0 : n - 1;
    return (c + STEP[k] + n) % n;
  }, at);
}

// the smallest box at a place; -1: none
export function under(boxes, [x, y]) {
  const area = i => (boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]);
  const holds = ([a, b, c, d]) => a <= x && x <= c && b <= y && y <= d;
  const there = [...boxes.keys()].filter(i => holds(boxes[i]));
  return there.reduce((a, b) => a >= 0 && area(a) <= area(b) ? a : b, -1);
}

// the box between two corners
export function span(a, b) {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
}
