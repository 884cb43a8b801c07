// Numbers that are the same in every run.

export class Random {
  #state;

  constructor(seed) {
    this.#state = BigInt(seed);
  }

  /** splitmix64 */
  u64() {
    this.#state = BigInt.asUintN(64, this.#state + 0x9e3779b97f4a7c15n);
    let z = this.#state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  }

  /** A whole number below n, of n up to 2^53. */
  below(n) {
    return Number(this.u64() % BigInt(n));
  }

  of(values) {
    return values[this.below(values.length)];
  }
}
