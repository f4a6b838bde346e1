#include "task.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <unordered_set>

namespace btrmind {

namespace {

constexpr unsigned kMaxThreads = 64;
constexpr unsigned kMaxPerHandle = 16;
constexpr auto kIdle = std::chrono::seconds(5);

struct Job;
using JobPtr = std::shared_ptr<Job>;

// One per environment (main thread or worker). Lane threads reach it only through deliver().
struct Environment {
  std::mutex mutex;
  napi_threadsafe_function deliverer = nullptr;
  bool closed = false;
  // JavaScript thread only:
  unsigned unsettled = 0;  // while > 0 the deliverer keeps the event loop alive
  std::unordered_map<uint32_t, JobPtr> tickets;
  std::unordered_set<JobPtr> longRunning;
};
using EnvironmentPtr = std::shared_ptr<Environment>;

struct Job {
  TaskPtr task;
  EnvironmentPtr environment;
  Lane lane;
  uint32_t ticket;
  napi_deferred deferred;
  bool settled = false;  // JavaScript thread
  std::thread thread;    // long lane
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
    std::lock_guard<std::mutex> lock(mutex_);
    Handle* handle = job->task->handle.get();
    queue_.push_back(std::move(job));
    // At its limit: a thread that serves this descriptor already will come to it.
    if (handle != nullptr && handle->admitted++ >= kMaxPerHandle) return;
    if (idle_ >= queue_.size()) {
      wake_.notify_one();
      return;
    }
    if (threads_ == kMaxThreads) return;
    try {
      makeThread([this] { loop(); }).detach();
      threads_++;
    } catch (const Failure&) {
      if (threads_ > 0) return;  // the ones there will come to it
      queue_.pop_back();
      if (handle != nullptr) handle->admitted--;
      throw;
    }
  }

  // Takes a job that has not begun out of the queue, so that a stuck volume never piles work up.
  void withdraw(const JobPtr& job) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto at = queue_.begin(); at != queue_.end(); ++at) {
      if (*at == job) {
        if (job->task->handle != nullptr) job->task->handle->admitted--;
        queue_.erase(at);
        return;
      }
    }
  }

 private:
  // The first job whose descriptor is not at its limit.
  JobPtr take() {
    for (auto at = queue_.begin(); at != queue_.end(); ++at) {
      Handle* handle = (*at)->task->handle.get();
      if (handle != nullptr && handle->running >= kMaxPerHandle) continue;
      JobPtr job = std::move(*at);
      queue_.erase(at);
      if (handle != nullptr) handle->running++;
      return job;
    }
    return nullptr;
  }

  void loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      JobPtr job = take();
      if (job == nullptr) {
        idle_++;
        bool woken = wake_.wait_for(lock, kIdle) == std::cv_status::no_timeout;
        idle_--;
        if (woken || !queue_.empty()) {
          job = take();
          if (job == nullptr) continue;
        } else {
          threads_--;
          return;
        }
      }
      lock.unlock();
      job->task->run();
      // Let go before the promise settles: after close() nothing of a finished task keeps the volume busy. It may be
      // the last owner, and close(2) may block.
      if (HandlePtr handle = std::move(job->task->handle); handle != nullptr) {
        std::lock_guard<std::mutex> guard(mutex_);
        handle->running--;
        handle->admitted--;
      }
      deliver(std::move(job));
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<JobPtr> queue_;
  unsigned threads_ = 0;
  unsigned idle_ = 0;
};

// Never destroyed: its threads may be in the kernel when the process exits.
QuickLane& quickLane() {
  static auto* lane = new QuickLane;
  return *lane;
}

EnvironmentPtr& environmentOf(Napi::Env env) { return *env.GetInstanceData<EnvironmentPtr>(); }

// JavaScript thread: settles the promise once, and lets the event loop go when nothing is left.
template <class Value>
void settleOnce(Napi::Env env, Job& job, Value value) {
  if (job.settled) return;
  job.settled = true;
  if (job.ticket != 0) job.environment->tickets.erase(job.ticket);
  try {
    napi_resolve_deferred(env, job.deferred, value());
  } catch (const Failure& failure) {
    napi_reject_deferred(env, job.deferred, toJs(env, failure));
  } catch (const Napi::Error& error) {
    napi_reject_deferred(env, job.deferred, error.Value());
  }
  if (--job.environment->unsettled == 0) napi_unref_threadsafe_function(env, job.environment->deliverer);
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
  settleOnce(env, *job, [&] { return job->task->settle(env); });
}

// JavaScript thread, when the environment ends (exit, or a worker's termination).
void onCleanup(void* data) {
  EnvironmentPtr environment = *static_cast<EnvironmentPtr*>(data);
  {
    std::lock_guard<std::mutex> lock(environment->mutex);
    environment->closed = true;
  }
  for (const JobPtr& job : environment->longRunning) {
    job->task->cancelled = true;
    job->task->interrupt();
  }
  for (const JobPtr& job : environment->longRunning) job->thread.join();
  environment->longRunning.clear();
  for (auto& [ticket, job] : environment->tickets) {
    job->task->cancelled = true;
    quickLane().withdraw(job);
  }
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
    job->task->interrupt();
  } else {
    quickLane().withdraw(job);
    settleOnce(args.env(), *job, []() -> Napi::Value { throw Failure{ECANCELED, nullptr, "wait for the kernel"}; });
  }
  return Napi::Boolean::New(args.env(), true);
}

}  // namespace

Napi::Value start(Napi::Env env, TaskPtr task, Lane lane, uint32_t ticket) {
  EnvironmentPtr environment = environmentOf(env);
  auto job = std::make_shared<Job>();
  job->task = std::move(task);
  job->environment = environment;
  job->lane = lane;
  job->ticket = ticket;
  napi_value promise;
  if (napi_create_promise(env, &job->deferred, &promise) != napi_ok) throw Napi::Error::New(env);
  if (environment->unsettled++ == 0) napi_ref_threadsafe_function(env, environment->deliverer);
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
    settleOnce(env, *job, [&]() -> Napi::Value { throw failure; });
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
