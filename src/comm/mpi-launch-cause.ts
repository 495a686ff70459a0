/** What ssh, a shell or Node.js on another host say when ranks cannot be started there, in words of this program. */

export interface LaunchCause {
  message: string;
  hint: string;
}

const known: [RegExp, (groups: string[]) => LaunchCause][] = [
  [
    /^ssh: connect to host (\S+) port \d+: (.+?)\s*$/,
    ([host, reason]) => ({
      message: `ssh cannot reach ${host}: ${reason}`,
      hint: `ssh ${host} true must work from this host`,
    }),
  ],
  [
    /^ssh: Could not resolve hostname ([^:\s]+)/,
    ([host]) => ({ message: `${host} is not known to this host`, hint: 'look at the spelling, or give an address' }),
  ],
  [
    /^(?:\S+@)?(\S+): Permission denied \(/,
    ([host]) => ({
      message: `${host} lets nobody in without a password`,
      hint: `give it a key of yours: ssh-copy-id ${host}, until ssh ${host} true asks nothing`,
    }),
  ],
  [
    /^Host key verification failed/,
    () => ({
      message: 'ssh does not know the key of a host',
      hint: 'run ssh HOST true once for each host and confirm its key',
    }),
  ],
  [
    /(?:^|[\s/])(orted|prted): (?:.*not found|No such file)/,
    ([daemon]) => ({
      message: `a host has no ${daemon}: Open MPI is not installed there, or not on the PATH of its ssh sessions`,
      hint: 'install the same Open MPI there, or say where it is: --mpirun-args="--prefix DIRECTORY"',
    }),
  ],
  [
    /Cannot find module '(.*mpi-rank\.js)'/,
    ([path]) => ({
      message: `a host does not have ${path}`,
      hint: 'install this program there, the same version at the same path',
    }),
  ],
];

export function launchCause(line: string): LaunchCause | undefined {
  for (const [pattern, tell] of known) {
    const match = pattern.exec(line);
    if (match !== null) return tell(match.slice(1));
  }
  return undefined;
}
