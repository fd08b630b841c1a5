// The SIGBUS handler and the ranges it knows. It runs in whatever thread touched the page, so it uses nothing but
// lock-free atomics and mmap(), which on Linux is a bare system call.
#include "ngx_http_apikey_fault.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>

namespace apikey::nginx {
namespace {

// As many snapshots as sixteen stores can have open, with their vetoes, and the ones being verified.
constexpr std::size_t kMaxRanges = std::size_t{16} * 68;

struct Range {
  std::atomic<std::uintptr_t> begin;  // 0: free; 1: being taken
  std::atomic<std::uintptr_t> end;
};
std::array<Range, kMaxRanges> ranges;
std::atomic<int> guards_of_all;
std::atomic<std::uintptr_t> page_size;  // 0: the handler is not installed

std::uintptr_t address_of(const void* p) noexcept { return reinterpret_cast<std::uintptr_t>(p); }

bool is_ours(std::uintptr_t address) noexcept {
  if (guards_of_all.load() > 0) {
    return true;
  }
  for (const Range& range : ranges) {
    if (address >= range.begin.load() && address < range.end.load()) {
      return true;
    }
  }
  return false;
}

void on_bus_error(int signal_number, siginfo_t* info, void*) noexcept {
  const std::uintptr_t size = page_size.load();
  const std::uintptr_t address = address_of(info->si_addr);
  // Sent by kill() it has no address and is nobody's page.
  if (info->si_code == BUS_ADRERR && is_ours(address)) {
    auto* page = static_cast<char*>(info->si_addr) - address % size;
    if (mmap(page, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page) {
      return;
    }
  }
  struct sigaction fatal = {};
  fatal.sa_handler = SIG_DFL;
  static_cast<void>(sigaction(signal_number, &fatal, nullptr));
  static_cast<void>(raise(signal_number));
}

bool install() noexcept {
  if (page_size.load() != 0) {
    return true;
  }
  const long size = sysconf(_SC_PAGESIZE);
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  if (size <= 0 || sigaction(SIGBUS, &action, nullptr) != 0) {
    return false;
  }
  page_size.store(static_cast<std::uintptr_t>(size));
  return true;
}

}  // namespace

bool guard(std::span<const std::byte> mapping) noexcept {
  if (!install()) {
    return false;
  }
  for (Range& range : ranges) {
    std::uintptr_t expected = 0;
    if (range.begin.compare_exchange_strong(expected, 1)) {
      range.end.store(address_of(mapping.data()) + mapping.size());
      range.begin.store(address_of(mapping.data()));
      return true;
    }
  }
  return false;
}

void unguard(std::span<const std::byte> mapping) noexcept {
  for (Range& range : ranges) {
    if (range.begin.load() == address_of(mapping.data())) {
      range.end.store(0);
      range.begin.store(0);
      return;
    }
  }
}

GuardAll::GuardAll() noexcept {
  static_cast<void>(install());
  guards_of_all.fetch_add(1);
}

GuardAll::~GuardAll() { guards_of_all.fetch_sub(1); }

}  // namespace apikey::nginx
