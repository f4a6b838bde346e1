/**
 * The specification's reward for one decision, from the volume's utilisation before and after it:
 *
 *     r = 10·(prev − curr)
 *       − 15   if curr > 90
 *       − 50   more if curr ≥ 99
 *       +  5   if prev − curr > 2
 *
 * docs/learning.md works it out on examples and names its faults.
 * @param prevUtil utilisation before, in percent (0–100)
 * @param currUtil utilisation after, in percent (0–100)
 * @example calculateReward(95, 92) // 20: 30 for the three percent, 5 for more than two, −15 for being above 90
 */
export function calculateReward(prevUtil: number, currUtil: number): number {
  const freed = prevUtil - currUtil
  let reward = 10 * freed
  if (currUtil > 90) reward -= 15
  if (currUtil >= 99) reward -= 50
  if (freed > 2) reward += 5
  return reward
}
