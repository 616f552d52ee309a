/**
 * Segments that the server VAD would report for one recording. The same rules as rtnb.vad.ServerVadMachine, so that a
 * dragged threshold needs no kernel.
 *
 * @typedef {{threshold: number, silence_duration_ms: number, prefix_padding_ms: number}} Setting
 * @typedef {{hysteresis: number, lowest_release: number, min_speech_frames: number, threshold_slope: number,
 *   threshold_shift: number, silence_rounding: "up"|"nearest"|"down"}} Constants
 * @typedef {{start_ms: number, audio_start_ms: number, emitted_ms: number, stop_ms: ?number}} Segment
 * @typedef {{start_ms: number, end_ms: number}} Turn
 */

export const FRAME_MS = 32;
const ROUNDINGS = { up: Math.ceil, nearest: (/** @type {number} */ frames) => Math.floor(frames + 0.5), down: Math.floor };

/** Probability of the local model that the service's threshold stands for. */
export function localThreshold(/** @type {number} */ threshold, /** @type {Constants} */ constants) {
  const { threshold_slope: slope, threshold_shift: shift } = constants;
  if ((slope === 1 && shift === 0) || !(threshold > 0 && threshold < 1)) return threshold;
  const logit = slope * Math.log(threshold / (1 - threshold)) + shift;
  return logit > -700 ? 1 / (1 + Math.exp(-logit)) : 0;
}

/** Probability below which speech may end. */
export function releaseThreshold(/** @type {number} */ threshold, /** @type {Constants} */ constants) {
  return localThreshold(Math.max(threshold - constants.hysteresis, constants.lowest_release), constants);
}

/**
 * Segments in order; stop_ms is null where the audio ended first.
 * @param {Float32Array} probabilities one per frame
 * @param {Setting} setting
 * @param {Constants} constants
 */
export function segments(probabilities, setting, constants) {
  const high = localThreshold(setting.threshold, constants);
  const low = releaseThreshold(setting.threshold, constants);
  const silent = ROUNDINGS[constants.silence_rounding](setting.silence_duration_ms / FRAME_MS);
  /** @type {Segment[]} */
  const found = [];
  let [speaking, run, quiet] = [false, 0, -1];
  probabilities.forEach((p, frame) => {
    const now_ms = FRAME_MS * (frame + 1);
    if (!speaking) {
      run = p >= high ? run + 1 : 0;
      if (run < constants.min_speech_frames) return;
      const start_ms = now_ms - FRAME_MS * run;
      const audio_start_ms = Math.max(0, start_ms - setting.prefix_padding_ms);
      found.push({ start_ms, audio_start_ms, emitted_ms: now_ms, stop_ms: null });
      [speaking, run, quiet] = [true, 0, -1];
    } else if (p >= high) {
      quiet = -1; // probabilities between low and high neither cancel the silence nor end the segment
    } else if (p < low) {
      if (quiet < 0) quiet = frame;
      if (frame < quiet + silent) return;
      found[found.length - 1].stop_ms = now_ms;
      speaking = false;
    }
  });
  return found;
}

/** First early stop of each turn that has one; a stop in the last `tolerance_ms` of a turn is not early. */
export function cutOffs(/** @type {Segment[]} */ found, /** @type {Turn[]} */ turns, tolerance_ms = 100) {
  return turns.flatMap(({ start_ms, end_ms }, turn) => {
    const stops = found.map((one) => one.stop_ms ?? Infinity);
    const stop_ms = stops.find((ms) => ms > start_ms && ms < end_ms - tolerance_ms);
    return stop_ms === undefined ? [] : [{ turn, stop_ms }];
  });
}

/** Format a value for display; a value without unit is a share. */
export function formatValue(/** @type {number} */ value, /** @type {string} */ unit) {
  if (!isFinite(value)) return "–";
  return unit === "" ? `${(100 * value).toFixed(1)} %` : `${Math.round(value)} ${unit.replace("1/", "per ")}`;
}
