// The page's numbers: unpacked, and asked for.
const DATA = JSON.parse(document.getElementById('data').textContent);

class Layer {
  constructor(source, number) {
    Object.assign(this, source, {number});
    this.rows = DATA.sequences[source.queries];
    this.columns = DATA.sequences[source.keys];
    this.n = this.rows.tokens.length;
    this.m = this.columns.tokens.length;
    this.all = this.columns.tokens.map((_, j) => j);
  }

  async load() {
    const bytes = await unpack(this.weights), count = this.heads * this.n;
    if (bytes.length !== count * (2 + this.m)) throw Error('The weights in this page are incomplete');
    this.shifts = bytes.subarray(0, count);
    this.ranks = bytes.subarray(count, 2 * count);
    this.codes = bytes.subarray(2 * count);
    if (this.vectors) {
      const raw = await unpack(this.vectors), vectors = this.heads * (this.n + this.m), size = vectors * this.vectors.dim;
      this.products = new Float32Array(raw.buffer, 0, count);
      this.scales = new Float32Array(raw.buffer, 4 * count, vectors);
      const numbers = 4 * (count + vectors);
      this.high = raw.subarray(numbers, numbers + size);
      this.low = raw.subarray(numbers + size);
    }
  }

  weight(h, i, j) {
    const row = h * this.n + i;
    return this.codes[(h * this.m + j) * this.n + i] / (255 << this.shifts[row]);
  }

  // All weights of a head, row after row, and the largest of them, to which colours are fitted.
  plane(h) {
    const {n, m, codes} = this, weights = new Float32Array(n * m);
    let largest = 0;
    for (let i = 0; i < n; i++) {
      const step = 1 / (255 << this.shifts[h * n + i]);
      for (let j = 0, at = h * m * n + i; j < m; j++, at += n) {
        const weight = weights[i * m + j] = codes[at] * step;
        if (weight > largest) largest = weight;
      }
    }
    return {weights, largest: largest || 1};
  }

  // Place of the largest weight among the keys `shown`; the true one where several look alike in 8 bits.
  best(h, i, shown) {
    let best = -1, left = shown.length === this.m ? this.ranks[h * this.n + i] : 0;
    for (const j of shown) {
      const more = best < 0 ? 1 : this.weight(h, i, j) - this.weight(h, i, best);
      if (more > 0 && best >= 0 && shown.length === this.m) left = this.ranks[h * this.n + i];
      if (more > 0 || (more === 0 && left-- > 0)) best = j;
    }
    return best;
  }

  vector(number) {
    const dim = this.vectors.dim;
    return Float32Array.from({length: dim}, (_, c) => {
      const at = number * dim + c;
      return ((this.high[at] << 2 | this.low[at >> 2] >> 2 * (at & 3) & 3) - 512) / 511 * this.scales[number];
    });
  }
  query(h, i) { return this.vector(h * this.n + i); }
  key(h, j) { return this.vector(this.heads * this.n + h * this.m + j); }

  // The scaled product, null where the page has no vectors of this layer.
  product(h, i, j) {
    if (!this.vectors) return null;
    if (j === this.best(h, i, this.all)) return this.products[h * this.n + i];
    const key = this.key(h, j);
    return this.query(h, i).reduce((sum, q, c) => sum + q * key[c], 0) * this.vectors.scaling;
  }
}
