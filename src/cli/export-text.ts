import type { CheckReport, ExportReport } from '../export/export-plan.ts';
import type { EngineExporter } from '../export/exporter.ts';

/** What was written, what the plan promises, and how to start the engine with it. */
export function renderExport(report: ExportReport, { title }: EngineExporter): string {
  const {
    files,
    ranks,
    slotsPerRank,
    redundantExperts,
    engineVersion,
    promise,
    promiseHolds,
    promiseNeeds,
    launch,
    notes,
  } = report;
  const copies = redundantExperts > 0 ? `, ${redundantExperts} of them copies` : '';
  const promised =
    promise === null
      ? 'not measured'
      : `${promise.remoteDevicesPerToken.toFixed(3)} remote ranks a token and layer, local rate ${(100 * promise.localActivationRate).toFixed(1)} %, load imbalance ${promise.loadImbalance.toFixed(2)}${promiseHolds ? '' : holds(promiseNeeds)}`;
  return [
    `${files.join(', ')}: written and read back\n`,
    `for      ${title} ${engineVersion}, ${ranks} ranks, ${slotsPerRank} experts a rank and layer${copies}\n`,
    `promise  ${promised}\n`,
    `start    ${shellWords(launch)}\n`,
    ...notes.map((note) => `note     ${note}\n`),
  ].join('');
}

export function renderCheck(report: CheckReport, { title }: EngineExporter): string {
  const { file, ranks, moeLayers, slotsPerRank, redundantExperts, engineVersion, sidecar, plan } = report;
  const compared = [...(sidecar ? ['its sidecar'] : []), ...(plan ? ['the plan'] : [])];
  return (
    `${file}: good for ${title} ${engineVersion}, ${ranks} ranks: ${moeLayers} layers, ${slotsPerRank} experts a rank and layer, ` +
    `${redundantExperts} copies a layer${compared.length === 0 ? '' : `; agrees with ${compared.join(' and ')}`}\n`
  );
}

function holds(needs: string | null): string {
  return needs === null ? '; does not hold here, see below' : `; holds only with ${needs}`;
}

/** A command line that a shell reads as these words. */
function shellWords(words: string[]): string {
  return words.map((word) => (/^[\w./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(' ');
}
