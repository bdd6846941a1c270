// Vectors of /v1/embeddings: little-endian fp32 in base64, and the cosine of two.
// Knows numbers; nothing of the page and nothing of HTTP.

export function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

// 0 for a vector of zeros, which has no direction.
export function cosine(one, other) {
  let product = 0;
  let left = 0;
  let right = 0;
  for (let index = 0; index < one.length; index += 1) {
    product += one[index] * other[index];
    left += one[index] * one[index];
    right += other[index] * other[index];
  }
  return left && right ? product / Math.sqrt(left * right) : 0;
}
