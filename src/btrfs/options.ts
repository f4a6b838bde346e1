import * as v from 'valibot'

/** `signal` and `timeoutMs`, as every quick call takes them. Spread `.entries` into a larger strictObject. */
export const callOptions = v.strictObject({
  signal: v.optional(v.instance(AbortSignal)),
  timeoutMs: v.optional(v.pipe(v.number(), v.minValue(1), v.maxValue(2 ** 31 - 1))),
})
