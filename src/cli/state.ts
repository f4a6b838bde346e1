import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'

/**
 * Where `run --apply` keeps its state when nobody says: what cannot be undone must be on record.
 * @param environment STATE_DIRECTORY is systemd's (the first of its list); a relative XDG_STATE_HOME counts as none,
 * as its specification has it
 */
export function defaultStateDir(
  uuid: string,
  environment: NodeJS.ProcessEnv = process.env,
  uid = process.geteuid?.(),
): string {
  const ofService = environment.STATE_DIRECTORY?.split(':')[0]
  if (ofService) return ofService
  if (uid === 0) return join('/var/lib/btrmind', uuid)
  const { XDG_STATE_HOME: named } = environment
  const home = named !== undefined && isAbsolute(named) ? named : join(environment.HOME || homedir(), '.local/state')
  return join(home, 'btrmind', uuid)
}
