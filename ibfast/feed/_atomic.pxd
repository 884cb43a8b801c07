# Atomic loads, stores and fences, and the doorbell (futex) that readers sleep on.
#
# The rule of the file: nothing but single instructions and single system calls. Who may write a word, and why an
# order is enough, is said where the word is used (_ring.pxd).

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from *:
    """
    #include <stdint.h>

    #if defined(__GNUC__) || defined(__clang__)
      #define ibfast_load_acquire(p)      __atomic_load_n((p), __ATOMIC_ACQUIRE)
      #define ibfast_load_relaxed(p)      __atomic_load_n((p), __ATOMIC_RELAXED)
      #define ibfast_store_release(p, v)  __atomic_store_n((p), (v), __ATOMIC_RELEASE)
      #define ibfast_store_relaxed(p, v)  __atomic_store_n((p), (v), __ATOMIC_RELAXED)
      #define ibfast_fence_acquire()      __atomic_thread_fence(__ATOMIC_ACQUIRE)
      #define ibfast_fence_release()      __atomic_thread_fence(__ATOMIC_RELEASE)
      #define ibfast_fence_full()         __atomic_thread_fence(__ATOMIC_SEQ_CST)
      #define ibfast_or_u32(p, v)         __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
      #define ibfast_exchange_u32(p, v)   __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
      #define ibfast_add_u32(p, v)        __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST)
    #elif defined(_MSC_VER) && defined(_M_X64)
      /* x64 loads acquire and stores release by themselves; only the compiler has to be held back. */
      #include <intrin.h>
      #define ibfast_load_relaxed(p)      (*(p))
      static __forceinline uint64_t ibfast_load_acquire_(const volatile uint64_t *p)
          { uint64_t v = *p; _ReadWriteBarrier(); return v; }
      #define ibfast_load_acquire(p)      ibfast_load_acquire_((const volatile uint64_t *)(p))
      #define ibfast_store_release(p, v)  do { _ReadWriteBarrier(); *(volatile uint64_t *)(p) = (v); } while (0)
      #define ibfast_store_relaxed(p, v)  (*(volatile uint64_t *)(p) = (v))
      #define ibfast_fence_acquire()      _ReadWriteBarrier()
      #define ibfast_fence_release()      _ReadWriteBarrier()
      #define ibfast_fence_full()         _mm_mfence()
      #define ibfast_or_u32(p, v)         ((uint32_t)_InterlockedOr((volatile long *)(p), (long)(v)))
      #define ibfast_exchange_u32(p, v)   ((uint32_t)_InterlockedExchange((volatile long *)(p), (long)(v)))
      #define ibfast_add_u32(p, v)        ((uint32_t)_InterlockedExchangeAdd((volatile long *)(p), (long)(v)))
    #else
      #error "ibfast needs GCC, Clang, or MSVC on x64"
    #endif

    #if defined(__linux__)
      #include <linux/futex.h>
      #include <sys/syscall.h>
      #include <time.h>
      #include <unistd.h>
      /* Not FUTEX_PRIVATE: the word may stand in memory that several processes map. */
      static inline void ibfast_doorbell_wait(uint32_t *word, uint32_t seen, int64_t timeout_ns) {
          struct timespec limit = { timeout_ns / 1000000000, timeout_ns % 1000000000 };
          syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, NULL, 0);
      }
      static inline void ibfast_doorbell_ring(uint32_t *word) {
          syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
      }
    #else
      /* No wait on a shared word here: a sleeper looks again after a millisecond at most. */
      #if defined(_WIN32)
        #include <windows.h>
        #define ibfast_nap(ns) Sleep(1)
      #else
        #include <time.h>
        static inline void ibfast_nap(int64_t ns) { struct timespec t = { 0, (long)ns }; nanosleep(&t, NULL); }
      #endif
      static inline void ibfast_doorbell_wait(uint32_t *word, uint32_t seen, int64_t timeout_ns) {
          if (*(volatile uint32_t *)word == seen) ibfast_nap(timeout_ns < 1000000 ? timeout_ns : 1000000);
      }
      static inline void ibfast_doorbell_ring(uint32_t *word) { (void)word; }
    #endif
    """
    uint64_t load_acquire "ibfast_load_acquire"(const uint64_t *p) noexcept nogil
    uint64_t load_relaxed "ibfast_load_relaxed"(const uint64_t *p) noexcept nogil
    uint32_t load_relaxed_u32 "ibfast_load_relaxed"(const uint32_t *p) noexcept nogil
    void store_release "ibfast_store_release"(uint64_t *p, uint64_t v) noexcept nogil
    void store_relaxed "ibfast_store_relaxed"(uint64_t *p, uint64_t v) noexcept nogil
    void fence_acquire "ibfast_fence_acquire"() noexcept nogil
    void fence_release "ibfast_fence_release"() noexcept nogil
    void fence_full "ibfast_fence_full"() noexcept nogil
    uint32_t or_u32 "ibfast_or_u32"(uint32_t *p, uint32_t v) noexcept nogil
    uint32_t exchange_u32 "ibfast_exchange_u32"(uint32_t *p, uint32_t v) noexcept nogil
    uint32_t add_u32 "ibfast_add_u32"(uint32_t *p, uint32_t v) noexcept nogil
    void doorbell_wait "ibfast_doorbell_wait"(uint32_t *word, uint32_t seen, int64_t timeout_ns) noexcept nogil
    void doorbell_ring "ibfast_doorbell_ring"(uint32_t *word) noexcept nogil
