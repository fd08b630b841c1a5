// Descriptors in reserve. Called around every switch, and by the worker's timer.
#include "ngx_http_apikey_reserve.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>

namespace apikey::nginx {
namespace {

std::array<std::atomic<int>, 2> reserve{-1, -1};

}  // namespace

void fill_reserve() noexcept {
  for (std::atomic<int>& slot : reserve) {
    if (slot.load() >= 0) {
      continue;
    }
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int expected = -1;
    if (fd >= 0 && !slot.compare_exchange_strong(expected, fd)) {
      close(fd);
    }
  }
}

void spend_reserve() noexcept {
  for (std::atomic<int>& slot : reserve) {
    const int fd = slot.exchange(-1);
    if (fd >= 0) {
      close(fd);
    }
  }
}

}  // namespace apikey::nginx
