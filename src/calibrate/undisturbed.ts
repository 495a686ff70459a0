/** Lower quartile of measured times: what a machine takes when little else disturbs it, since other work only ever makes it slower. */
export function undisturbed(seconds: readonly number[]): number {
  return seconds.toSorted((a, b) => a - b)[seconds.length >> 2]!;
}
