/** What the server VAD would tell of one recording: rtnb.vad.ServerVadMachine again, so that a dragged threshold needs no kernel. */

export const FRAME_MS = 32;
const ROUNDINGS = { up: Math.ceil, nearest: (frames) => Math.floor(frames + 0.5), down: Math.floor };

/** The local probability that the service's threshold stands for. */
export function localThreshold(threshold, { threshold_slope: slope, threshold_shift: shift }) {
  if ((slope === 1 && shift === 0) || !(threshold > 0 && threshold < 1)) return threshold;
  const logit = slope * Math.log(threshold / (1 - threshold)) + shift;
  return logit > -700 ? 1 / (1 + Math.exp(-logit)) : 0;
}

export const releaseThreshold = (threshold, constants) =>
  localThreshold(Math.max(threshold - constants.hysteresis, constants.lowest_release), constants);

/** [{start_ms, audio_start_ms, told_ms, stop_ms}]; stop_ms is null where the audio ended first. */
export function segments(probabilities, { threshold, silence_duration_ms, prefix_padding_ms }, constants) {
  const high = localThreshold(threshold, constants);
  const low = releaseThreshold(threshold, constants);
  const silent = ROUNDINGS[constants.silence_rounding](silence_duration_ms / FRAME_MS);
  const found = [];
  let [speaking, run, quiet] = [false, 0, -1];
  for (let frame = 0; frame < probabilities.length; frame++) {
    const p = probabilities[frame];
    if (!speaking) {
      run = p >= high ? run + 1 : 0;
      if (run < constants.min_speech_frames) continue;
      const start_ms = FRAME_MS * (frame - run + 1);
      const audio_start_ms = Math.max(0, start_ms - prefix_padding_ms);
      found.push({ start_ms, audio_start_ms, told_ms: FRAME_MS * (frame + 1), stop_ms: null });
      [speaking, run, quiet] = [true, 0, -1];
    } else if (p >= high) quiet = -1;
    else if (p < low) {
      if (quiet < 0) quiet = frame;
      if (frame < quiet + silent) continue;
      found[found.length - 1].stop_ms = FRAME_MS * (frame + 1);
      speaking = false;
    }
  }
  return found;
}

/** The stops that end a turn early: [{turn, stop_ms}], the first of each turn; 100 ms before its true end are early enough. */
export function cutOffs(found, turns, tolerance_ms = 100) {
  const cut = [];
  turns.forEach(({ start_ms, end_ms }, turn) => {
    const early = found.find((one) => one.stop_ms !== null && one.stop_ms > start_ms && one.stop_ms < end_ms - tolerance_ms);
    if (early) cut.push({ turn, stop_ms: early.stop_ms });
  });
  return cut;
}

/** A colour between two for a share from 0 to 1; told apart without hue, too, since it goes from light to dark. */
export function shade(share) {
  const stops = [[253, 231, 200], [246, 161, 92], [200, 70, 90], [105, 30, 110], [30, 15, 60]];
  const at = Math.min(0.9999, Math.max(0, share)) * (stops.length - 1);
  const [from, to] = [stops[Math.floor(at)], stops[Math.floor(at) + 1]];
  return `rgb(${from.map((value, i) => Math.round(value + (to[i] - value) * (at % 1))).join(" ")})`;
}

/** Of [{x, y}] the indices none other beats in both, fastest first. */
export function front(points) {
  const order = points.map((_, i) => i).filter((i) => isFinite(points[i].x) && isFinite(points[i].y));
  order.sort((a, b) => points[a].x - points[b].x || points[a].y - points[b].y);
  let best = Infinity;
  return order.filter((i) => points[i].y < best && ((best = points[i].y), true));
}

/** A number as people read it: 0.123 of unit "" is a share. */
export function figure(value, unit) {
  if (value === null || !isFinite(value)) return "–";
  return unit === "" ? `${(100 * value).toFixed(1)} %` : `${Math.round(value)} ${unit.replace("1/", "per ")}`;
}
