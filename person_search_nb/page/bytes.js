// What Python sends as bytes comes as a DataView.

export function numbers(view) {  // float32
  return new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

export async function pictureOf(view) {  // JPEG or PNG; null: there is none
  return view && view.byteLength ? createImageBitmap(new Blob([view])) : null;
}
