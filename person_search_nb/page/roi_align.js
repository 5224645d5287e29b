// Cut each box out of the map all regions share, as roi_align.py does with its usual settings:
// two samples per bin and axis, the centre of cell i at coordinate i + 0.5.

const SAMPLES = 2;

// Of each bin along one axis: the cells between which its samples lie, and what each counts for.
// A sample beyond the map counts for nothing.
function shares(from, step, bins, cells) {
  return Array.from({ length: bins }, (_, bin) => {
    const out = new Map(), add = (cell, v) => out.set(cell, (out.get(cell) ?? 0) + v / SAMPLES);
    for (let s = 0; s < SAMPLES; s++) {
      const v = from + (bin + (s + 0.5) / SAMPLES) * step, inside = Math.max(v, 0);
      if (v < -1 || v > cells) continue;
      const low = Math.min(Math.floor(inside), cells - 1);
      const share = low === cells - 1 ? 0 : inside - low;
      add(low, 1 - share);
      if (share) add(low + 1, share);
    }
    return [...out];
  });
}

// The map with all channels of a cell next to one another: (h * w, C).
function byCell(data, channels, cells) {
  const out = new Float32Array(cells * channels);
  for (let c = 0; c < channels; c++)
    for (let k = 0; k < cells; k++) out[k * channels + c] = data[c * cells + k];
  return out;
}

// features: { data, dims: [1, C, h, w] }; boxes in px; out: { data, dims: [R, C, size, size] }
export function roiAlign(features, boxes, size, scale) {
  const [, channels, h, w] = features.dims, number = boxes.length / 4, bins = size * size;
  const map = byCell(features.data, channels, h * w);
  const data = new Float32Array(number * channels * bins), sum = new Float32Array(channels);
  for (let r = 0; r < number; r++) {
    const [x1, y1, x2, y2] = boxes.subarray(4 * r, 4 * r + 4);
    const along = (low, high, cells) =>
      shares(low * scale - 0.5, (high - low) * scale / size, size, cells);
    const down = along(y1, y2, h), across = along(x1, x2, w);
    for (let bin = 0; bin < bins; bin++) {
      sum.fill(0);
      for (const [row, much] of down[Math.floor(bin / size)]) {
        for (const [column, share] of across[bin % size]) {
          const at = (row * w + column) * channels, weight = much * share;
          for (let c = 0; c < channels; c++) sum[c] += weight * map[at + c];
        }
      }
      for (let c = 0; c < channels; c++) data[(r * channels + c) * bins + bin] = sum[c];
    }
  }
  return { data, dims: [number, channels, size, size] };
}
