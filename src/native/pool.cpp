// Work on several threads: those of torch's OpenMP where its GOMP_parallel was handed over, else a
// pool of its own. Never both: after each of its operations OpenMP's threads spin for some
// milliseconds, and a second set of threads waits for their cores.
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "griffin.h"
#include "select.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define PAUSE() _mm_pause()
#else
#define PAUSE() std::this_thread::yield()
#endif

namespace griffin {
namespace {

// Pieces [next, end) that one thread takes from the front and others, when they have none left,
// from the back: neighbours lie side by side in memory, and a processor reads ahead as long as its
// thread goes on where it was. Handed out one by one, two threads get every other piece.
class alignas(64) Share {
 public:
  void put(Index next, Index end) {
    both_.store(uint64_t(next) << 32 | uint64_t(end), std::memory_order_relaxed);
  }

  // A piece, or -1: none is left.
  Index take(bool front) {
    uint64_t both = both_.load(std::memory_order_relaxed);
    for (;;) {
      const Index next = Index(both >> 32), end = Index(both & 0xffffffffu);
      if (next >= end) return -1;
      const uint64_t rest = front ? both + (uint64_t(1) << 32) : both - 1;
      if (both_.compare_exchange_weak(both, rest, std::memory_order_relaxed))
        return front ? next : end - 1;
    }
  }

 private:
  std::atomic<uint64_t> both_{0};
};

constexpr int kShares = 64;  // threads beyond them help out

struct Job {
  Job(Index count, int threads, void (*task)(void*, Index), void* arg)
      : task(task), arg(arg), shares(threads < kShares ? threads : kShares) {
    for (int i = 0; i < shares; ++i) share[i].put(count * i / shares, count * (i + 1) / shares);
  }

  void (*task)(void*, Index);
  void* arg;
  int shares;
  std::atomic<int> joined{0};
  std::atomic<int> working{0};  // helpers that have not left the job yet
  Share share[kShares];
};

void work(Job& job) {
  const int mine = job.joined.fetch_add(1, std::memory_order_relaxed) % job.shares;
  for (int turn = 0; turn < job.shares; ++turn) {
    Share& share = job.share[(mine + turn) % job.shares];
    for (Index i; (i = share.take(turn == 0)) >= 0;) job.task(job.arg, i);
  }
}

// libgomp's: runs body(arg) on `threads` threads and returns when all have left it.
using Region = void (*)(void (*body)(void*), void* arg, unsigned threads, unsigned flags);
std::atomic<Region> region{nullptr};

class Pool {
 public:
  void run(Index count, int threads, void (*task)(void*, Index), void* arg) {
    // one job at a time; whoever finds the pool busy works alone
    std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
    int helpers = int(count < threads ? count : threads) - 1;
    if (helpers <= 0 || !mine.owns_lock()) {
      for (Index i = 0; i < count; ++i) task(arg, i);
      return;
    }
    Job job(count, helpers + 1, task, arg);
    job.working.store(helpers, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> guard(lock_);
      while (int(threads_.size()) < helpers) {
        int number = int(threads_.size());
        threads_.emplace_back([this, number, seen = ticket_.load()] { serve(number, seen); });
        threads_.back().detach();
      }
      job_ = &job, helpers_ = helpers;
      ticket_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    work(job);
    while (job.working.load(std::memory_order_acquire)) PAUSE();
  }

 private:
  static constexpr int kSpins = 4000;  // some tens of microseconds, then sleep

  void serve(int number, uint64_t seen) {
    for (;;) {
      for (int i = 0; i < kSpins && ticket_.load(std::memory_order_acquire) == seen; ++i) PAUSE();
      Job* job;
      bool wanted;
      {
        std::unique_lock<std::mutex> guard(lock_);
        wake_.wait(guard, [&] { return ticket_.load(std::memory_order_relaxed) != seen; });
        seen = ticket_.load(std::memory_order_relaxed);
        job = job_, wanted = number < helpers_;
      }
      if (!wanted) continue;
      work(*job);
      job->working.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex busy_, lock_;
  std::condition_variable wake_;
  std::atomic<uint64_t> ticket_{0};
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  int helpers_ = 0;
};

}  // namespace

void parallel(Index count, int threads, void (*task)(void*, Index), void* arg) {
  if (count <= 1 || threads <= 1) {
    for (Index i = 0; i < count; ++i) task(arg, i);
    return;
  }
  if (const Region openmp = region.load(std::memory_order_relaxed)) {
    Job job(count, threads, task, arg);
    // always as many threads as torch uses: another number would make libgomp form a new team
    openmp([](void* one) { work(*static_cast<Job*>(one)); }, &job, unsigned(threads), 0);
    return;
  }
  static Pool* pool = new Pool;  // never destroyed: its threads may outlive static destructors
  pool->run(count, threads, task, arg);
}

}  // namespace griffin

extern "C" {
// The address of GOMP_parallel in the libgomp that torch uses; null: threads of our own.
EXPORT void griffin_use_openmp(void* gomp_parallel) {
  griffin::region.store(reinterpret_cast<griffin::Region>(gomp_parallel),
                        std::memory_order_relaxed);
}
}
