// Reading the page's own files, with a count of what has come; .gz files are unpacked here.

// what goes wrong with a file is told with its name
export async function inFile(name, use) {
  try { return await use(); } catch (error) {
    throw new Error(`${name} is missing or broken: ${error.message}`);
  }
}

export function reader(onBytes) {
  return name => inFile(name, async () => {
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    const bytes = await answer.arrayBuffer();
    onBytes(bytes.byteLength);
    const [a, b] = new Uint8Array(bytes, 0, Math.min(2, bytes.byteLength));
    // some servers let the browser unpack
    if (!name.endsWith('.gz') || a !== 0x1f || b !== 0x8b) return new Uint8Array(bytes);
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
    return new Uint8Array(await new Response(plain).arrayBuffer());
  });
}

// A picture as a network takes it: { data: 3 x h x w numbers 0-1, dims }, neither side above
// `most`, and both 33 or more, which is what networks need.
export async function toImage(source, most = Infinity) {
  const bitmap = source instanceof ImageBitmap ? source : await createImageBitmap(source);
  const share = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
  const w = Math.max(33, Math.round(bitmap.width * share));
  const h = Math.max(33, Math.round(bitmap.height * share));
  const canvas = new OffscreenCanvas(w, h), pen = canvas.getContext('2d');
  pen.imageSmoothingQuality = 'high';
  pen.fillStyle = '#fff';  // behind what is transparent
  pen.fillRect(0, 0, w, h);
  pen.drawImage(bitmap, 0, 0, w, h);
  const pixels = pen.getImageData(0, 0, w, h).data, data = new Float32Array(3 * h * w);
  for (let k = 0; k < h * w; k++)
    for (let c = 0; c < 3; c++) data[c * h * w + k] = pixels[4 * k + c] / 255;
  return { data, dims: [1, 3, h, w], canvas };
}
