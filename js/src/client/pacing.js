// How fast requests follow each other. The pause outlives connections, since a server ends those that ask too fast.

const PAUSE_MS = 2;
const MOST_PAUSE_MS = 1_000;

/** The pause between two requests of a client. */
export class Pacing {
  pauseMs = PAUSE_MS;

  /** Double the pause, as a session has ended because its requests came too fast. */
  slowDown() {
    this.pauseMs = Math.min(2 * this.pauseMs, MOST_PAUSE_MS);
  }
}
