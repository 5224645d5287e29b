// Boxes [x1, y1, x2, y2] in px, n of them in one Float32Array of 4 n numbers, as in boxes.py.

export function iou(a, i, b, j) {
  const w = Math.min(a[4 * i + 2], b[4 * j + 2]) - Math.max(a[4 * i], b[4 * j]);
  const h = Math.min(a[4 * i + 3], b[4 * j + 3]) - Math.max(a[4 * i + 1], b[4 * j + 1]);
  if (w <= 0 || h <= 0) return 0;
  const area = (x, k) => (x[4 * k + 2] - x[4 * k]) * (x[4 * k + 3] - x[4 * k + 1]);
  return w * h / (area(a, i) + area(b, j) - w * h);
}

// Numbers of the boxes that stay, by falling score; of equal scores the first comes first.
export function nms(boxes, scores, threshold, most = Infinity) {
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b);
  const kept = [];
  for (const i of order) {
    if (kept.length >= most) break;
    if (kept.every(k => iou(boxes, i, boxes, k) <= threshold)) kept.push(i);
  }
  return kept;
}

export function clip(boxes, height, width) {
  const within = (v, most) => Math.min(Math.max(v, 0), most);
  return boxes.map((v, k) => within(v, k % 2 ? height : width));
}

export function isLarge(boxes, i, least) {
  return boxes[4 * i + 2] - boxes[4 * i] >= least && boxes[4 * i + 3] - boxes[4 * i + 1] >= least;
}

export function take(boxes, rows) {
  return Float32Array.from(rows.flatMap(i => [...boxes.subarray(4 * i, 4 * i + 4)]));
}
