/** Ranks may live on several hosts, each with files of its own: what must be equal is compared before anything is loaded. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { SmoeError } from '../errors.ts';
import type { Agreement, RankIdentity } from './mpi-protocol.ts';

/** Hash of every compiled module and kernel of this installation. */
export function buildFingerprint(): string {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const hash = createHash('sha256');
  const files = readdirSync(`${root}/src`, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.js'))
    .map((file) => `src/${file}`)
    .sort();
  for (const file of files) hash.update(file).update(readFileSync(`${root}/${file}`));
  try {
    hash.update(readFileSync(`${root}/kernels/kernels.wasm`));
  } catch {
    hash.update('no kernels');
  }
  return hash.digest('hex').slice(0, 16);
}

/** Throws when two ranks run different versions of MPI. */
export function assertSameMpi(identities: RankIdentity[]): void {
  const [first] = identities;
  const rank = identities.findIndex(({ mpi }) => mpi !== first.mpi);
  if (rank === -1) return;
  const { host, mpi } = identities[rank];
  throw new SmoeError('MPI_VERSION', `rank ${rank} on ${host} runs ${mpi}, rank 0 on ${first.host} ${first.mpi}`, {
    hint: 'install the same version of Open MPI on every host',
  });
}

/** Throws when a rank runs another program than the host. */
export function assertSameBuild(identities: RankIdentity[], build: string): void {
  for (const [rank, identity] of identities.entries()) {
    if (identity.build === build) continue;
    throw new SmoeError(
      'RANK_BUILD',
      `rank ${rank} on ${identity.host} runs build ${identity.build}, the host of the run ${build}`,
      { hint: 'install the same version, compiled alike, at the same path on every host' },
    );
  }
}

/** Throws when a rank has another value than the host expects or, where it expects none, than the first rank that has one. */
export function assertAgreement(agreements: Agreement[], identities: RankIdentity[], expected: Agreement): void {
  const known = new Map(Object.entries(expected).map(([name, value]) => [name, { value, who: 'the host of the run' }]));
  for (const [rank, agreement] of agreements.entries()) {
    const who = `rank ${rank} on ${identities[rank].host}`;
    for (const [name, value] of Object.entries(agreement)) {
      const first = known.get(name);
      if (first === undefined) known.set(name, { value, who });
      else if (first.value !== value) {
        throw new SmoeError('RANKS_DISAGREE', `${who} has ${name} ${value}, ${first.who} has ${first.value}`, {
          hint: `give every host the same ${name}`,
        });
      }
    }
  }
}
