// A map over its scene, in colours: what draw_map of heat_maps.py draws, and in the same colours.

import { INFERNO } from './inferno.js';

const MORE = [230, 97, 1], LESS = [94, 60, 153];  // orange: the first of two has more; purple: less

function unit(values) {
  const length = Math.hypot(...values) || 1;
  return Array.from(values, v => v / length);
}

// teacher minus student, each at unit length, from -1 to 1
export function difference(student, teacher) {
  const s = unit(student), t = unit(teacher), d = s.map((v, k) => t[k] - v);
  const most = Math.max(...d.map(Math.abs)) || 1;
  return d.map(v => v / most);
}

// from the lowest value, 0, to the highest, 1
export function scaled(values) {
  const low = Math.min(...values), range = Math.max(...values) - low || 1;
  return Array.from(values, v => (v - low) / range);
}

// Where a place lies among n cells: a cell, the next one, and how much of that.
function between(at, n) {
  const v = Math.min(Math.max(at, 0), n - 1), k = Math.floor(v);
  return [k, Math.min(k + 1, n - 1), v - k];
}

// For each of `pixels` along one side (axis 0: across, 1: down) `between` of its centre; null
// beside the box.
function places(pixels, size, axis, heat) {
  const n = heat.shape[1 - axis], from = heat.corner[axis];
  const at = i => from + (i + 0.5) * size[axis] / pixels;
  if (!heat.box) {
    return Array.from({ length: pixels }, (_, i) => between((at(i) - 0.5) / heat.stride, n));
  }
  const low = heat.box[axis], high = heat.box[axis + 2], pooled = (high - low) / heat.cells;
  const step = Math.round(heat.cells / n);  // cell k lies on pooled cell step * k
  return Array.from({ length: pixels }, (_, i) =>
    at(i) < low || at(i) >= high ? null : between(((at(i) - low) / pooled - 0.5) / step, n));
}

function colourOf(v, heat) {  // a colour, and how strong it is
  if (!heat.difference) {
    return [INFERNO[Math.floor(255 * Math.min(Math.max(v, 0), 1))], heat.opacity];
  }
  return [v > 0 ? MORE : LESS, Math.min(Math.abs(v), 1) * Math.min(1, 1.4 * heat.opacity)];
}

// Colour pixels { data, width, height } that show `size` px of the scene; `heat`:
// values, shape [h, w]: 0 to 1, of a difference -1 to 1; opacity; difference: true or false;
// corner: where the pixels begin in the scene; stride: px from cell to cell, or, if the map lies in
// one box, box: [x1, y1, x2, y2] px of the scene, and cells: how many it was pooled to, per side
export function tint(pixels, size, heat) {
  const { data, width, height } = pixels, { values, shape: [, w] } = heat;
  const across = places(width, size, 0, heat), down = places(height, size, 1, heat);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const k = 4 * (y * width + x);
      let grey = (data[k] + data[k + 1] + data[k + 2]) / 3;
      if (heat.box) grey = grey * 0.5 + 110;
      const column = across[x], row = down[y];
      if (row && column) {
        const [left, right, share] = column;
        const mix = r => (1 - share) * values[r * w + left] + share * values[r * w + right];
        const v = (1 - row[2]) * mix(row[0]) + row[2] * mix(row[1]);
        const [colour, strength] = colourOf(v, heat);
        for (let c = 0; c < 3; c++) data[k + c] = Math.floor(grey + strength * (colour[c] - grey));
      } else data.fill(Math.floor(grey), k, k + 3);
    }
  }
}

// picture: what a canvas can draw; heat: as for `tint`, or null
export function paint(canvas, picture, size, heat) {
  const { width, height } = picture;
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  pen.drawImage(picture, 0, 0);
  if (!heat) return;
  const pixels = pen.getImageData(0, 0, width, height);
  tint(pixels, size, heat);
  pen.putImageData(pixels, 0, 0);
}
