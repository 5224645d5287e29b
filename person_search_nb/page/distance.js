// How far two networks' maps are apart: FD and AD of one level, Eq. 5 and 6, as distillation.py has
// them. A map here is the root of the energy of each cell; energy maps are compared at unit length.

function unitEnergy(map) {
  const squares = Float64Array.from(map, v => v * v);
  const length = Math.hypot(...squares);
  return squares.map(v => v / Math.max(length, 1e-12));
}

export function distance(student, teacher) {
  if (student.length !== teacher.length)
    throw new Error(`maps of ${student.length} and ${teacher.length} cells cannot be compared`);
  const s = unitEnergy(student), t = unitEnergy(teacher);
  return s.reduce((sum, v, k) => sum + (v - t[k]) ** 2, 0) / s.length / 2;
}

// The gain that makes the student attend where its teacher does: mean A of one over the other.
export function gainLike(teacher, student) {
  const data = Float32Array.from(teacher.data, (v, k) => v / Math.max(student.data[k], 1e-6));
  return { data, dims: [1, ...teacher.dims] };
}
