#include "task.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace btrmind {

namespace {

constexpr unsigned kMaxThreads = 128;
constexpr unsigned kMaxPerVolume = 16;
constexpr auto kIdle = std::chrono::seconds(5);
constexpr auto kLookOut = std::chrono::microseconds(40);
constexpr std::chrono::milliseconds kBusy{100};  // and no longer looks out where others want the processor

struct Job;
using JobPtr = std::shared_ptr<Job>;

// One per environment (main thread or worker). Lane threads reach it only through deliver().
struct Environment {
  std::mutex mutex;
  napi_threadsafe_function deliverer = nullptr;
  bool closed = false;
  // JavaScript thread only:
  std::unordered_set<JobPtr> unsettled;  // while there are any, the deliverer keeps the event loop alive
  std::unordered_map<uint32_t, JobPtr> tickets;
  std::unordered_set<JobPtr> longRunning;  // until joined
};
using EnvironmentPtr = std::shared_ptr<Environment>;

struct Job {
  TaskPtr task;
  EnvironmentPtr environment;
  Lane lane;
  uint32_t ticket;
  napi_deferred deferred;
  std::thread thread;  // long lane
};

// Signals must never interrupt an ioctl: DEFRAG_RANGE would return 0 with part of the work done.
template <class Body>
std::thread makeThread(Body body) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread thread(std::move(body));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
  } catch (const std::system_error&) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw Failure{EAGAIN, "pthread_create", "start a thread"};
  }
}

// Any thread. After the environment closed, the job is dropped here.
void deliver(JobPtr job) {
  EnvironmentPtr environment = job->environment;
  std::lock_guard<std::mutex> lock(environment->mutex);
  if (environment->closed) return;
  auto* owned = new JobPtr(std::move(job));
  if (napi_call_threadsafe_function(environment->deliverer, owned, napi_tsfn_nonblocking) != napi_ok) delete owned;
}

class QuickLane {
 public:
  void submit(JobPtr job) {
    if (admit(std::move(job))) wake_.notify_one();  // not under the mutex: whoever wakes up needs it
  }

  // Takes what has not begun out again, so that a stuck volume never piles work up.
  void withdraw(const JobPtr& job) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto share = shares_.find(job->task->share);
    if (share == shares_.end() || removeFrom(share->second.waiting, job)) return;
    if (removeFrom(ready_, job)) release(job->task->share);
  }

 private:
  struct Share {
    unsigned admitted = 0;  // ready or running
    std::deque<JobPtr> waiting;
  };

  // True when a sleeping thread has to come for it.
  bool admit(JobPtr job) {
    std::lock_guard<std::mutex> lock(mutex_);
    Share& share = shares_[job->task->share];
    if (share.admitted == kMaxPerVolume) {  // one of those will make room for it
      share.waiting.push_back(std::move(job));
      return false;
    }
    share.admitted++;
    ready_.push_back(std::move(job));
    arrivals_.fetch_add(1, std::memory_order_release);
    // Some of the ready ones may already have a thread on its way; one too many goes idle.
    if (idle_ < ready_.size() && threads_ < kMaxThreads) {
      try {
        makeThread([this] { loop(); }).detach();
        threads_++;
      } catch (const Failure&) {
        if (threads_ == 0) {  // else the ones there will come to it
          JobPtr refused = std::move(ready_.back());
          ready_.pop_back();
          release(refused->task->share);
          throw;
        }
      }
    }
    return ready_.size() > lookingOut_ && idle_ > lookingOut_;
  }

  // A caller that awaits one answer after the other is back some 20 µs after the last one: looking out for it that
  // long saves both sides the price of sleep and wake-up (a third of the whole hop when they are on two processors).
  // One thread at a time does, and gives way to whatever else wants its processor, above all to that caller. Where that
  // takes long the processors are busy: then it is better asleep, since who is woken goes before who gave way.
  void lookOut(std::unique_lock<std::mutex>& lock) {
    unsigned seen = arrivals_.load(std::memory_order_relaxed);
    lookingOut_++;
    lock.unlock();
    auto begun = std::chrono::steady_clock::now();
    auto now = begun;
    while (arrivals_.load(std::memory_order_acquire) == seen && now < begun + kLookOut) {
      std::this_thread::yield();
      now = std::chrono::steady_clock::now();
    }
    lock.lock();
    lookingOut_--;
    if (now > begun + 2 * kLookOut) lookOutFrom_ = now + kBusy;
  }

  static bool removeFrom(std::deque<JobPtr>& queue, const JobPtr& job) {
    auto at = std::find(queue.begin(), queue.end(), job);
    if (at == queue.end()) return false;
    queue.erase(at);
    return true;
  }

  // One admitted job of that volume is gone. The next one takes its place, and the thread that was its or is on its
  // way to it: so every ready job has a thread that will come, unless all kMaxThreads are busy.
  void release(const std::string& name) {
    auto share = shares_.find(name);
    if (!share->second.waiting.empty()) {
      ready_.push_back(std::move(share->second.waiting.front()));
      share->second.waiting.pop_front();
    } else if (--share->second.admitted == 0) {
      shares_.erase(share);
    }
  }

  void loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      if (ready_.empty()) {
        idle_++;
        if (lookingOut_ == 0 && std::chrono::steady_clock::now() >= lookOutFrom_) lookOut(lock);
        bool woken = wake_.wait_for(lock, kIdle, [this] { return !ready_.empty(); });
        idle_--;
        if (!woken) {
          threads_--;
          return;
        }
      }
      JobPtr job = std::move(ready_.front());
      ready_.pop_front();
      lock.unlock();
      job->task->run();
      // Let go before the promise settles: after close() nothing of a finished task keeps the volume busy. It may be
      // the last owner, and close(2) may block.
      job->task->handle.reset();
      lock.lock();
      release(job->task->share);
      lock.unlock();
      deliver(std::move(job));
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<JobPtr> ready_;
  std::unordered_map<std::string, Share> shares_;
  std::chrono::steady_clock::time_point lookOutFrom_;
  unsigned threads_ = 0;
  unsigned idle_ = 0;  // looking out or asleep
  unsigned lookingOut_ = 0;
  std::atomic<unsigned> arrivals_{0};
};

// Never destroyed: its threads may be in the kernel when the process exits.
QuickLane& quickLane() {
  static auto* lane = new QuickLane;
  return *lane;
}

EnvironmentPtr& environmentOf(Napi::Env env) { return *env.GetInstanceData<EnvironmentPtr>(); }

void reject(Napi::Env env, napi_deferred deferred, const Failure& failure) {
  napi_reject_deferred(env, deferred, toJs(env, failure));
}

// JavaScript thread: settles the promise once, and lets the event loop go when nothing is left.
template <class Value>
void settleOnce(Napi::Env env, JobPtr job, Value value) {
  Environment& environment = *job->environment;
  if (environment.unsettled.erase(job) == 0) return;
  if (environment.unsettled.empty()) napi_unref_threadsafe_function(env, environment.deliverer);
  auto ticket = environment.tickets.find(job->ticket);
  if (ticket != environment.tickets.end() && ticket->second == job) environment.tickets.erase(ticket);
  try {
    try {
      napi_resolve_deferred(env, job->deferred, value());
    } catch (const Failure& failure) {
      reject(env, job->deferred, failure);
    } catch (const std::bad_alloc&) {
      reject(env, job->deferred, Failure{ENOMEM, nullptr, "allocate memory"});
    }
  } catch (const Napi::Error& error) {
    // A conversion failed; or this worker is being terminated, and nobody is left to tell (this does nothing then).
    napi_reject_deferred(env, job->deferred, error.Value());
  }
}

void onDelivered(napi_env rawEnv, napi_value, void*, void* data) {
  std::unique_ptr<JobPtr> owned(static_cast<JobPtr*>(data));
  if (rawEnv == nullptr) return;
  Napi::Env env(rawEnv);
  Napi::HandleScope scope(env);
  JobPtr job = *owned;
  if (job->lane == Lane::longRunning) {
    job->environment->longRunning.erase(job);
    job->thread.join();
  }
  settleOnce(env, job, [&] { return job->task->settle(env); });
}

// JavaScript thread, when the environment ends (exit, or a worker's termination).
void onCleanup(void* data) {
  EnvironmentPtr environment = *static_cast<EnvironmentPtr*>(data);
  {
    std::lock_guard<std::mutex> lock(environment->mutex);
    environment->closed = true;
  }
  for (const JobPtr& job : environment->unsettled) {
    job->task->cancelled = true;
    if (job->lane == Lane::quick) quickLane().withdraw(job);
  }
  for (const JobPtr& job : environment->longRunning) job->task->interrupt();
  for (const JobPtr& job : environment->longRunning) job->thread.join();
  environment->longRunning.clear();
  environment->unsettled.clear();
  environment->tickets.clear();
  napi_release_threadsafe_function(environment->deliverer, napi_tsfn_abort);
}

Napi::Value cancel(const Args& args) {
  EnvironmentPtr environment = environmentOf(args.env());
  auto found = environment->tickets.find(static_cast<uint32_t>(args.u64(0)));
  if (found == environment->tickets.end()) return Napi::Boolean::New(args.env(), false);
  JobPtr job = found->second;
  job->task->cancelled = true;
  if (job->lane == Lane::longRunning) {
    // It may wait until the kernel has stopped.
    makeThread([job] { job->task->interrupt(); }).detach();
  } else {
    quickLane().withdraw(job);
    settleOnce(args.env(), job, []() -> Napi::Value { throw Failure{ECANCELED, nullptr, "wait for the kernel"}; });
  }
  return Napi::Boolean::New(args.env(), true);
}

}  // namespace

void inParallel(unsigned count, const std::function<void(unsigned)>& part) {
  std::mutex mutex;
  std::exception_ptr failure;
  auto run = [&](unsigned index) {
    try {
      part(index);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  unsigned begun = 1;
  for (; begun < count; begun++) {
    try {
      threads.push_back(makeThread([&run, begun] { run(begun); }));
    } catch (const Failure&) {
      break;  // this thread does the others' parts
    }
  }
  run(0);
  for (; begun < count; begun++) run(begun);
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

Napi::Value start(Napi::Env env, TaskPtr task, Lane lane, uint32_t ticket) {
  EnvironmentPtr environment = environmentOf(env);
  auto job = std::make_shared<Job>();
  job->task = std::move(task);
  job->environment = environment;
  job->lane = lane;
  job->ticket = ticket;
  napi_value promise;
  if (napi_create_promise(env, &job->deferred, &promise) != napi_ok) throw Napi::Error::New(env);
  if (environment->unsettled.empty()) napi_ref_threadsafe_function(env, environment->deliverer);
  environment->unsettled.insert(job);
  if (ticket != 0) environment->tickets.emplace(ticket, job);
  try {
    if (lane == Lane::quick) {
      quickLane().submit(job);
    } else {
      environment->longRunning.insert(job);
      job->thread = makeThread([job] {
        job->task->run();
        job->task->handle.reset();
        deliver(job);
      });
    }
  } catch (const Failure& failure) {
    environment->longRunning.erase(job);
    settleOnce(env, job, [&]() -> Napi::Value { throw failure; });
  }
  return Napi::Value(env, promise);
}

void defineTasks(Napi::Env env, Napi::Object exports) {
  auto environment = std::make_shared<Environment>();
  napi_value name = Napi::String::New(env, "btrmind");
  napi_status status = napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr,
                                                       onDelivered, &environment->deliverer);
  if (status != napi_ok) throw Napi::Error::New(env);
  napi_unref_threadsafe_function(env, environment->deliverer);
  auto* owned = new EnvironmentPtr(environment);
  env.SetInstanceData(owned);
  // Added after the threadsafe function, so it runs before that one is torn down.
  env.AddCleanupHook(onCleanup, static_cast<void*>(owned));
  define<cancel>(env, exports, "cancel");
}

}  // namespace btrmind
