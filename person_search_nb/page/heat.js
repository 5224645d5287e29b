// A map over its scene, in colours: what widgets.draw_map draws.

const MORE = [230, 97, 1], LESS = [94, 60, 153];  // orange: the teacher has more; purple: less

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
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  return Array.from(values, v => (v - low) / span);
}

// One pixel for each cell, with a frame that repeats the outermost cells.
function tile(values, [, h, w], colours, opacity) {
  const canvas = new OffscreenCanvas(w + 2, h + 2), pen = canvas.getContext('2d');
  const pixels = pen.createImageData(w + 2, h + 2);
  const within = (v, n) => Math.min(Math.max(v, 0), n - 1);
  for (let y = 0; y < h + 2; y++) {
    for (let x = 0; x < w + 2; x++) {
      const v = values[within(y - 1, h) * w + within(x - 1, w)];
      const [colour, strength] = colours ? [colours[Math.round(v * (colours.length - 1))], opacity]
        : [v > 0 ? MORE : LESS, Math.abs(v) * Math.min(1, 1.4 * opacity)];
      pixels.data.set([...colour, 255 * strength], 4 * (y * (w + 2) + x));
    }
  }
  pen.putImageData(pixels, 0, 0);
  return canvas;
}

// picture: a canvas; map: { values, dims, stride } or null; colours: a table, null for a difference
export function paint(canvas, picture, map, colours, opacity) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  const pen = canvas.getContext('2d');
  pen.filter = map ? 'grayscale(1)' : 'none';
  pen.drawImage(picture, 0, 0);
  if (!map) return;
  pen.filter = 'none';
  const [, h, w] = map.dims, s = map.stride, from = 0.5 - 1.5 * s;  // cell 0 lies on pixel 0
  const small = tile(map.values, map.dims, colours, opacity);
  pen.drawImage(small, from, from, (w + 2) * s, (h + 2) * s);
}
