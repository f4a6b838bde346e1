/** The five actions, by id: the network's outputs have this order. */
export const ACTIONS = [
  {
    id: 0,
    name: 'none',
    description: 'do nothing',
    undo: 'nothing to undo',
  },
  {
    id: 1,
    name: 'temp',
    description: 'delete the oldest files of the temporary directories',
    undo: 'cannot be undone: each file is checked again as it is deleted, and its path is journalled before',
  },
  {
    id: 2,
    name: 'compress',
    description: 'compress inactive files that no snapshot shares',
    undo: 'needs none: content, size and times stay; rewriting a file without compression brings its old layout back',
  },
  {
    id: 3,
    name: 'balance',
    description: 'give back metadata block groups that are less than half full',
    undo: 'needs none: nothing that can be read changes, and metadata allocates anew when it needs to',
  },
  {
    id: 4,
    name: 'snapshots',
    description: 'delete the oldest read-only snapshot of a named directory',
    undo: 'cannot be undone: it is checked again as it is deleted, and journalled before',
  },
] as const

export type Action = (typeof ACTIONS)[number]
export type ActionId = Action['id']
export type ActionName = Action['name']

export function actionId(name: ActionName): ActionId {
  return ACTIONS.find((action) => action.name === name)!.id
}

export function actionName(id: ActionId): ActionName {
  return ACTIONS[id].name
}
