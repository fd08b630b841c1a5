// What a request costs: read before its limits are taken, settled when it ends by what its answer said.
// Called by _decision, the filters and the log phase. Never delays or changes an answer.
//   line     of an apikey_cost directive: for the limits of one measure, or for all that no other line is for
//   reserve  what is taken before the answer is known
//   figure   what the answer says the request has cost: in a variable, or as a number in its body
#pragma once

#include <cstdint>
#include <string_view>

#include "apikey/number_finder.hpp"
#include "ngx_http_apikey_ctx.hpp"

namespace apikey::nginx {

inline constexpr std::uint64_t kMaxCost = 1'000'000'000;  // of one request, as written or as a variable says

// A number that is written, or that a variable holds when the request is decided.
struct Amount {
  std::uint64_t number = 1;
  ngx_int_t variable = NGX_ERROR;  // its index; NGX_ERROR: the number counts
};

// An apikey_cost line.
struct CostLine {
  std::string_view measure;        // empty: all limits that no other line is for
  bool counts_all = false;         // of=*: also what only other locations name
  Amount first;                    // the reserve, or where there is none the cost
  ngx_int_t response = NGX_ERROR;  // index of the variable of response=
  NumberPath path;                 // of response=json:
  [[nodiscard]] bool reads_body() const noexcept { return path.count != 0; }
  [[nodiscard]] bool is_settled() const noexcept { return response != NGX_ERROR || reads_body(); }
};

[[nodiscard]] std::span<const CostLine> cost_lines_of(const LocConf& conf) noexcept;
// Whether a line of the location looks for the cost in the body: then the whole of it has to come by.
[[nodiscard]] bool meters_body(const LocConf& conf) noexcept;

// Reads what the lines of the location say of this request into the ctx's charge, in their order; where nothing may be
// charged, nothing. What is no number costs 1. RETURNS: false without memory.
[[nodiscard]] bool read_costs(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx, bool may_charge) noexcept;

// Looks for figures in the body that is about to be sent, where a line of the location that decided asks for one, and
// sees to it that it is sent as a whole: called by the header filter.
void begin_watching(ngx_http_request_t* r, const RequestCtx& deciding) noexcept;
// Called for each piece of the body. REQUIRES: client.watch is not null.
void watch(RequestCtx& client, const ngx_chain_t* in) noexcept;

// Charges or gives back what the answer says, or gives back everything. What has reached an upstream is given back by
// apikey_refund alone. Called once, when the client request has ended.
void settle(ngx_http_request_t* r, RequestCtx& client) noexcept;

}  // namespace apikey::nginx
