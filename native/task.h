// Threads: the only code that makes any.
//
// Quick lane: a process-wide pool of our own, not libuv's four threads. It grows to kMaxThreads and shrinks when idle;
// one volume gets at most kMaxPerVolume of them, whatever the number of its descriptors, so that a stuck one cannot
// starve the others; neither can openings of it.
// Long lane: a thread for each operation that may take hours (balance, scrub).
//
// Life of a task: created on the JavaScript thread → run() on a lane thread → delivered through the environment's
// threadsafe function → settled on the JavaScript thread. cancel(ticket) settles a quick task at once with ECANCELED
// (its thread may still be stuck in the kernel; what it brings home is dropped), and asks a long one to stop.
// The environment's clean-up hook (JavaScript thread) cancels and joins long tasks; quick ones are abandoned.
#pragma once
#include <napi.h>
#include <unistd.h>

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "error.h"
#include "handle.h"
#include "js.h"
#include "place.h"

namespace btrmind {

using Cancelled = std::atomic<bool>;

class Task {
 public:
  virtual ~Task() = default;
  virtual void run() = 0;                         // lane thread; must not throw
  virtual Napi::Value settle(Napi::Env env) = 0;  // JavaScript thread; throws Failure
  virtual void interrupt() {}  // any thread, may block; gets a long task that is inside the kernel out of it
  Cancelled cancelled{false};
  HandlePtr handle;   // keeps the descriptor open while the task lives
  std::string share;  // whose part of the quick lane it takes
};
using TaskPtr = std::shared_ptr<Task>;

enum class Lane { quick, longRunning };

// Starts `task` and gives the promise. `ticket` 0: cannot be cancelled.
Napi::Value start(Napi::Env env, TaskPtr task, Lane lane, uint32_t ticket);
void defineTasks(Napi::Env env, Napi::Object exports);  // cancel(ticket); sets the environment up

template <class Work, class Convert>
class WorkTask final : public Task {
 public:
  using Out = std::invoke_result_t<Work&, const Cancelled&>;
  WorkTask(Work work, Convert convert, std::function<void()> interrupt)
      : work_(std::move(work)), convert_(std::move(convert)), interrupt_(std::move(interrupt)) {}
  void run() override {
    try {
      out_.emplace((*work_)(cancelled));
    } catch (const Failure& failure) {
      failure_ = failure;
    } catch (const std::bad_alloc&) {
      failure_ = Failure{ENOMEM, nullptr, "allocate memory"};
    } catch (const std::exception& error) {
      failure_ = Failure{EINVAL, nullptr, error.what()};
    }
    work_.reset();  // and the handle that it holds
    // Whoever interrupts is done with it, and nobody does any more: what somebody else has begun must not be stopped.
    std::lock_guard<std::mutex> lock(interrupting_);
    interrupt_ = nullptr;
  }
  Napi::Value settle(Napi::Env env) override {
    if (failure_) throw *failure_;
    return convert_(env, *out_);
  }
  void interrupt() override {
    std::lock_guard<std::mutex> lock(interrupting_);
    if (interrupt_) interrupt_();
  }

 private:
  std::optional<Work> work_;
  Convert convert_;
  std::mutex interrupting_;
  std::function<void()> interrupt_;  // until the work has ended
  std::optional<Out> out_;
  std::optional<Failure> failure_;
};

// work(const Cancelled&) → Out on a lane thread; convert(env, Out&) → value on the JavaScript thread.
// Argument 0 of every asynchronous native function is its ticket.
template <class Work, class Convert>
Napi::Value quick(const Args& args, HandlePtr handle, Work work, Convert convert) {
  auto task = std::make_shared<WorkTask<Work, Convert>>(std::move(work), std::move(convert), nullptr);
  task->share = handle->volume;
  task->handle = std::move(handle);
  return start(args.env(), std::move(task), Lane::quick, static_cast<uint32_t>(args.u64(0)));
}

// As quick, where there is no handle yet: the mount that `path` lies on stands for the volume.
template <class Work, class Convert>
Napi::Value quickAt(const Args& args, const std::string& path, Work work, Convert convert) {
  auto task = std::make_shared<WorkTask<Work, Convert>>(std::move(work), std::move(convert), nullptr);
  task->share = mountPointOf(path);
  return start(args.env(), std::move(task), Lane::quick, static_cast<uint32_t>(args.u64(0)));
}

// As quick, on a thread of its own. interrupt() must make work() return soon; it may be called from any thread.
template <class Work, class Convert>
Napi::Value longRunning(const Args& args, HandlePtr handle, Work work, Convert convert,
                        std::function<void()> interrupt) {
  auto task = std::make_shared<WorkTask<Work, Convert>>(std::move(work), std::move(convert), std::move(interrupt));
  task->handle = std::move(handle);
  return start(args.env(), std::move(task), Lane::longRunning, static_cast<uint32_t>(args.u64(0)));
}

// A long call into the kernel. What stops it means whichever of its kind runs on the volume, also another process's: so
// that is asked only while this one is inside, and not in its first moment, in which the kernel refuses it where there
// is another.
class KernelCall {
 public:
  // The whole work holds one: after it stop() asks no more, and what it asked was answered. Else the kernel, still busy
  // with the request, would refuse or stop the next call of the kind.
  struct Work {
    KernelCall& call;
    ~Work() {
      call.ended_ = true;
      while (call.asking_ > 0) usleep(100);
    }
  };
  // Held inside the kernel.
  struct Inside {
    explicit Inside(KernelCall& call) : call(call) { call.inside_ = true; }
    ~Inside() { call.inside_ = false; }
    KernelCall& call;
  };
  // Until the work has ended, or ask() says that it was heard: the call may not have begun yet.
  template <class Ask>
  void stop(Ask ask, const Cancelled& giveUp = Cancelled{false}) const {
    while (!ended_ && !giveUp) {
      bool inside = inside_;
      usleep(1000);
      asking_++;
      bool heard = inside && inside_ && !ended_ && ask();
      asking_--;
      if (heard) return;
    }
  }

 private:
  std::atomic<bool> inside_{false}, ended_{false};
  mutable std::atomic<int> asking_{0};
};

// part(0) … part(count − 1) at once, each on a thread of its own but the first; one after the other where no thread is
// to be had. Within a task. Throws the first Failure when all have ended.
void inParallel(unsigned count, const std::function<void(unsigned)>& part);

// For work that gives nothing back.
struct Nothing {};
inline Napi::Value toUndefined(Napi::Env env, Nothing&) { return env.Undefined(); }

}  // namespace btrmind
