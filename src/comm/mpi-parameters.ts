/** Open MPI's parameters (`--mca NAME VALUE`) that ranks need, wherever mpirun is started. */
export const rankParameters: Record<string, string> = {
  // Ranks wait by polling: without it one that waits would keep a core from one that computes.
  mpi_yield_when_idle: '1',
  // A sender of a message above the eager limit asks the receiver first, and the answer waits behind the receiver's own data on the
  // same connection: ranks that exchange large messages all at once would leave a link idle half of the time. So the receiver does
  // not fetch the data itself ("put"), which takes one more such request, and most messages of a step are below the limit, by
  // default 64 KiB (docs/networks.md has both measured).
  btl_tcp_flags: 'send,inplace',
  btl_tcp_eager_limit: String(2 ** 20),
  // A connection's receive window begins at 64 KiB and the kernel widens it as the application reads. A message just longer fills it while its
  // receiver computes, and the sender stands still until somebody looks. As much as the system grants (Linux: net.core.rmem_max).
  btl_tcp_rcvbuf: String(2 ** 22),
  // mpirun and its daemons find out within seconds that the network between them is cut; by default it takes minutes. Later
  // than our own heartbeats, which know which rank it is.
  oob_tcp_keepalive_time: '4',
  oob_tcp_keepalive_intvl: '1',
  oob_tcp_keepalive_probes: '3',
};

/** Those that a rank itself needs; the others are mpirun's. */
export function ownParameters(): Record<string, string> {
  return Object.fromEntries(Object.entries(rankParameters).filter(([name]) => !name.startsWith('oob_')));
}

/**
 * For ranks that somebody else has started, with Slurm for instance: Open MPI also reads its parameters from the environment,
 * where mpirun puts those it is given. So what is there stays.
 */
export function setParametersInEnvironment(
  parameters: Record<string, string>,
  environment: Record<string, string | undefined> = process.env,
): void {
  for (const [name, value] of Object.entries(parameters)) environment[`OMPI_MCA_${name}`] ??= value;
}

export function parameterWords(parameters: Record<string, string>): string[] {
  return Object.entries(parameters).flatMap(([name, value]) => ['--mca', name, value]);
}

/** mpirun takes no parameter twice: of those given more than once only the last stays. */
export function withoutRepeatedParameters(words: readonly string[]): string[] {
  const last = new Map<string, number>();
  words.forEach((word, at) => word === '--mca' && last.set(words[at + 1]!, at));
  const repeated = (at: number): boolean => words[at] === '--mca' && last.get(words[at + 1]!) !== at;
  return words.filter((_, at) => !repeated(at) && !repeated(at - 1) && !repeated(at - 2));
}
