// Copies of the presented key in places that are no source: a client may send it twice, and what another part of the
// configuration takes it from (a `map` of a header) is not known here.
#pragma once

#include <array>

#include "apikey/key_form.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// The key of a request while it is hidden; wiped at its end.
class PresentedKey {
 public:
  PresentedKey() noexcept = default;
  ~PresentedKey();
  PresentedKey(const PresentedKey&) = delete;
  PresentedKey& operator=(const PresentedKey&) = delete;

  void keep(std::string_view key) noexcept;  // REQUIRES: at most kMaxKeyLength
  [[nodiscard]] std::string_view text() const noexcept { return {bytes_.data(), size_}; }

 private:
  std::size_t size_ = 0;
  std::array<char, kMaxKeyLength> bytes_;
};

// Puts the pseudonym in place of `key` in header lines and arguments of `r` and its parents, and `****` in their
// request lines. A key of less than 16 characters might be a word of somebody else's: it has to be the whole value of a
// header. RETURNS: false without memory.
bool hide_copies(ngx_http_request_t* r, std::string_view key) noexcept;

}  // namespace apikey::nginx
