import { readFileSync } from 'node:fs';
import * as v from 'valibot';
import { parse } from 'yaml';
import { ExitStatus, SmoeError } from '../errors.ts';
import { type Cluster, type ClusterNode, type Link, portSharers } from './cluster.ts';
import { clusterPresets } from './presets.ts';

/** A cluster at rest: YAML or JSON, in the units people use; docs/cluster-format.md describes it. */
const positive = v.pipe(v.number('a number is needed'), v.finite('must be finite'), v.gtValue(0, 'must be above 0'));
const notNegative = v.pipe(
  v.number('a number is needed'),
  v.finite('must be finite'),
  v.minValue(0, 'must not be negative'),
);
const count = (most: number): v.GenericSchema<number> =>
  v.pipe(
    v.number('a number is needed'),
    v.integer('must be a whole number'),
    v.minValue(1, 'must be at least 1'),
    v.maxValue(most, `must be at most ${most}`),
  );
const text = v.pipe(v.string('a text is needed'), v.minLength(1, 'must not be empty'));

const linkFields = {
  gigabitsPerSecond: positive,
  latencyUs: v.optional(notNegative, 0),
  messageUs: v.optional(notNegative, 0),
  measured: v.optional(
    v.pipe(
      v.array(v.strictTuple([positive, positive]), 'a list of [bytes, microseconds] is needed'),
      v.minLength(1, 'must not be empty'),
      v.maxLength(1000, 'at most 1000 are supported'),
      v.check(
        (times) => times.every(([bytes, us], i) => i === 0 || (bytes > times[i - 1]![0] && us >= times[i - 1]![1])),
        'bytes must ascend and times must not fall',
      ),
    ),
  ),
};
const insideSchema = v.strictObject(linkFields);
const betweenSchema = v.strictObject({
  ...linkFields,
  sharedBy: v.optional(v.picklist(portSharers, `must be one of: ${portSharers.join(', ')}`), 'node'),
});
const deviceSchema = v.strictObject({
  gigaflops: positive,
  attentionGigaflops: v.optional(positive),
  expertGigaflops: v.optional(positive),
  memoryGBps: positive,
  memoryGB: positive,
  layerUs: v.optional(notNegative, 0),
  tokenUs: v.optional(notNegative, 0),
  predictUs: v.optional(notNegative, 0),
});
const parts = {
  device: v.optional(deviceSchema),
  inside: v.optional(insideSchema),
  between: v.optional(betweenSchema),
  sharedCores: v.optional(count(4096)),
};
const clusterSchema = v.strictObject({
  name: v.optional(text),
  ...parts,
  nodes: v.pipe(
    v.array(
      v.strictObject({ name: v.optional(text), count: v.optional(count(4096), 1), devices: count(1024), ...parts }),
      'a list of nodes is needed',
    ),
    v.minLength(1, 'at least one node is needed'),
  ),
});
type StoredCluster = v.InferOutput<typeof clusterSchema>;
type StoredLink = v.InferOutput<typeof insideSchema>;

const mostDevices = 4096;
/** Where a cluster has no such link, none of its bytes travel it. */
const noLink: Link = {
  bytesPerSecond: Number.POSITIVE_INFINITY,
  latencySeconds: 0,
  messageSeconds: 0,
  measured: undefined,
};

/** A preset by name, or else the file of that name; CLUSTER_* errors. */
export function loadCluster(nameOrPath: string): Cluster {
  const preset = clusterPresets[nameOrPath];
  return preset === undefined ? readCluster(nameOrPath) : decodeCluster(preset, nameOrPath);
}

export function readCluster(path: string): Cluster {
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SmoeError('CLUSTER_UNREADABLE', `${path}: cannot read the cluster: ${(cause as Error).message}`, {
      hint: `name a YAML or JSON file, or one of: ${Object.keys(clusterPresets).join(', ')}`,
      exitStatus: ExitStatus.usage,
      cause,
    });
  }
  return decodeCluster(content, path);
}

/** @param where names the file in errors */
export function decodeCluster(content: string, where: string): Cluster {
  let json: unknown;
  try {
    json = parse(content);
  } catch (cause) {
    throw new SmoeError('CLUSTER_SYNTAX', `${where}: neither YAML nor JSON: ${firstLine((cause as Error).message)}`, {
      hint: 'docs/cluster-format.md shows one',
      cause,
    });
  }
  if (json === null || json === undefined) throw invalid(where, 'file', 'is empty');
  const parsed = v.safeParse(clusterSchema, json);
  if (!parsed.success) {
    // A misspelt field explains the one that is missing.
    const issue = parsed.issues.find(({ expected }) => expected === 'never') ?? parsed.issues[0];
    throw invalid(where, v.getDotPath(issue) ?? 'file', messageOf(issue));
  }
  return buildCluster(parsed.output, where);
}

function buildCluster(stored: StoredCluster, where: string): Cluster {
  const nodes: ClusterNode[] = [];
  const total = stored.nodes.reduce((sum, node) => sum + node.count * node.devices, 0);
  if (total > mostDevices)
    throw invalid(where, 'nodes', `${total} devices in all, at most ${mostDevices} are supported`);
  const nodeCount = stored.nodes.reduce((sum, node) => sum + node.count, 0);
  const coresOfNode = stored.nodes.findIndex(({ sharedCores }) => sharedCores !== undefined);
  if (stored.sharedCores !== undefined && coresOfNode !== -1) {
    throw invalid(
      where,
      `nodes.${coresOfNode}.sharedCores`,
      'the whole cluster already shares cores; give one of them',
    );
  }
  stored.nodes.forEach((entry, index) => {
    const at = `nodes.${index}`;
    const device = entry.device ?? stored.device;
    const inside = entry.inside ?? stored.inside;
    const between = entry.between ?? stored.between;
    if (device === undefined) throw invalid(where, `${at}.device`, 'given neither here nor for the whole cluster');
    if (inside === undefined && entry.devices > 1) {
      throw invalid(where, `${at}.inside`, `${entry.devices} devices need a link inside the node`);
    }
    if (between === undefined && nodeCount > 1) {
      throw invalid(where, `${at}.between`, `${nodeCount} nodes need a link between them`);
    }
    for (let copy = 0; copy < entry.count; copy++) {
      const number = nodes.length;
      const name = entry.name ?? `node ${number}`;
      nodes.push({
        name: entry.name !== undefined && entry.count > 1 ? `${name} ${copy}` : name,
        devices: entry.devices,
        device: {
          flopsPerSecond: device.gigaflops * 1e9,
          attentionFlopsPerSecond: (device.attentionGigaflops ?? device.gigaflops) * 1e9,
          expertFlopsPerSecond: (device.expertGigaflops ?? device.gigaflops) * 1e9,
          memoryBytesPerSecond: device.memoryGBps * 1e9,
          memoryBytes: device.memoryGB * 1e9,
          layerSeconds: device.layerUs / 1e6,
          tokenSeconds: device.tokenUs / 1e6,
          predictSeconds: device.predictUs / 1e6,
        },
        inside: linkOf(inside),
        between: linkOf(between),
        betweenSharedBy: between?.sharedBy ?? 'node',
        sharedCores: entry.sharedCores,
      });
    }
  });
  const names = nodes.map(({ name }) => name);
  const repeated = names.find((name, i) => names.indexOf(name) !== i);
  if (repeated !== undefined) throw invalid(where, 'nodes', `two nodes are named ${JSON.stringify(repeated)}`);
  return { name: stored.name ?? where, nodes, sharedCores: stored.sharedCores };
}

function linkOf(link: StoredLink | undefined): Link {
  if (link === undefined) return noLink;
  return {
    bytesPerSecond: link.gigabitsPerSecond * 125e6,
    latencySeconds: link.latencyUs / 1e6,
    messageSeconds: link.messageUs / 1e6,
    measured: link.measured && {
      bytes: link.measured.map(([bytes]) => bytes),
      seconds: link.measured.map(([, microseconds]) => microseconds / 1e6),
    },
  };
}

function messageOf(issue: v.BaseIssue<unknown>): string {
  if (issue.kind === 'schema' && issue.type === 'strict_object') {
    if (issue.expected === 'never') return 'is not a field of a cluster file';
    return issue.expected === 'Object' ? `${issue.received} is no set of fields` : 'is missing';
  }
  return `${issue.received} ${issue.message}`;
}

function invalid(where: string, field: string, message: string): SmoeError {
  return new SmoeError('CLUSTER_INVALID', `${where}: ${field}: ${message}`, {
    hint: 'docs/cluster-format.md lists every field and its unit',
  });
}

function firstLine(message: string): string {
  return message.split('\n')[0]!;
}
