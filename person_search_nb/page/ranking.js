// Who in a gallery resembles a person: cosines of unit embeddings, as search.py ranks them.

// query: D numbers; gallery: n rows of D; out: [{ row, similarity }], most similar first
export function rank(query, gallery, most = Infinity, leaveOut = () => false) {
  const d = query.length, rows = [];
  for (let row = 0; row < gallery.length / d; row++) {
    if (leaveOut(row)) continue;
    let similarity = 0;
    for (let k = 0; k < d; k++) similarity += query[k] * gallery[row * d + k];
    rows.push({ row, similarity });
  }
  rows.sort((a, b) => b.similarity - a.similarity || a.row - b.row);
  return rows.slice(0, most);
}
