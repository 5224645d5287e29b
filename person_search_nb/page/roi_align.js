// Cut each box out of the map all regions share, as roi_align.py does with its usual settings:
// two samples per bin and axis, the centre of cell i at coordinate i + 0.5.

const SAMPLES = 2;

// Cells and weights of a point between cells; none where it lies beyond the map.
function taps(y, x, h, w) {
  if (y < -1 || y > h || x < -1 || x > w) return [];
  const low = (v, n) => Math.min(Math.floor(Math.max(v, 0)), n - 1);
  const share = (v, at, n) => at === n - 1 ? 0 : Math.max(v, 0) - at;
  const top = low(y, h), left = low(x, w);
  const dy = share(y, top, h), dx = share(x, left, w);
  const below = Math.min(top + 1, h - 1), right = Math.min(left + 1, w - 1);
  return [[top * w + left, (1 - dy) * (1 - dx)], [top * w + right, (1 - dy) * dx],
    [below * w + left, dy * (1 - dx)], [below * w + right, dy * dx]];
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
    const high = (y2 - y1) * scale / size, wide = (x2 - x1) * scale / size;
    for (let bin = 0; bin < bins; bin++) {
      sum.fill(0);
      for (let s = 0; s < SAMPLES * SAMPLES; s++) {
        const down = Math.floor(bin / size) + (Math.floor(s / SAMPLES) + 0.5) / SAMPLES;
        const across = bin % size + (s % SAMPLES + 0.5) / SAMPLES;
        const y = y1 * scale - 0.5 + down * high, x = x1 * scale - 0.5 + across * wide;
        for (const [cell, weight] of taps(y, x, h, w)) {
          const at = cell * channels;
          for (let c = 0; c < channels; c++) sum[c] += weight * map[at + c];
        }
      }
      for (let c = 0; c < channels; c++)
        data[(r * channels + c) * bins + bin] = sum[c] / (SAMPLES * SAMPLES);
    }
  }
  return { data, dims: [number, channels, size, size] };
}
