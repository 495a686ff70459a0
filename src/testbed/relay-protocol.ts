/** What the relay process is told when it starts, and what it reports while it runs. */

export interface RelayLink {
  /** TAP device that becomes the host's interface. */
  host: string;
  /** TAP device that becomes the bridge's port. */
  port: string;
  rateMbit: number | null;
  /** Delay of frames from host to port; the other way there is none. */
  latencyUs: number;
}

export interface RelayJob {
  links: RelayLink[];
  /** Where statistics are kept, brought up to date about once a second while frames pass. */
  statisticsFile: string;
}

/** The line on stdout that says every device exists. */
export const relayReadyLine = 'ready';
