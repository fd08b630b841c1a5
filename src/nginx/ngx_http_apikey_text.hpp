// Text that is composed piece by piece in the request's pool: challenges, header values, JSON answers.
// Called by _problem, _reply, _content and _vars. A text that ran out of memory stays so and says it.
#pragma once

#include <cstdint>

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

class Text {
 public:
  explicit Text(ngx_pool_t* pool) noexcept : pool_(pool) {}

  void add(std::string_view text) noexcept;
  void add_number(std::int64_t number) noexcept;
  // A JSON string (RFC 8259) in quotes; bytes above 0x7f go as they are.
  void add_json(std::string_view text) noexcept;
  // A quoted-string of a header (RFC 9110) in quotes; control characters become spaces.
  void add_quoted(std::string_view text) noexcept;

  // RETURNS: false when there was no memory; then the text is not to be used.
  [[nodiscard]] bool ok() const noexcept { return !failed_; }
  [[nodiscard]] ngx_str_t str() const noexcept { return {size_, data_}; }

 private:
  bool reserve(std::size_t more) noexcept;

  ngx_pool_t* pool_;
  u_char* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  bool failed_ = false;
};

// A number as text, in pool memory; empty without memory.
ngx_str_t number_text(ngx_pool_t* pool, std::int64_t number) noexcept;

// What may stand in a header line: `text` itself, or a copy in which each control character is a space, so that a name
// of the store never becomes a header of its own. RETURNS: empty without memory.
ngx_str_t header_safe(ngx_pool_t* pool, std::string_view text) noexcept;

}  // namespace apikey::nginx
