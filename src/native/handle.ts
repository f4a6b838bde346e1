/** An open descriptor; opaque. */
export type NativeHandle = { readonly __handle: unique symbol }
