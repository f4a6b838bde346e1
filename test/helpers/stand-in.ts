/**
 * For what a hook makes, so that it can be passed on before it is there: what is asked of this one, or assigned to it,
 * goes to the one that is there by then.
 */
export function standIn<T extends object>(now: () => T | undefined): T {
  const real = () => {
    const there = now()
    if (there === undefined) throw new Error('it is not there yet: a test or a hook must be running')
    return there
  }
  return new Proxy({} as T, {
    get(_, key) {
      const value: unknown = Reflect.get(real(), key, real())
      return typeof value === 'function' ? value.bind(real()) : value
    },
    set: (_, key, value) => Reflect.set(real(), key, value),
  })
}
