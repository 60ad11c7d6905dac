// A query, and documents in an order that word counts might give.

export const EXAMPLE = {
  query: "Who invented the light bulb?",
  documents: [
    "The light bulb in my refrigerator burned out; which one fits?",
    "A bulb planted in October gets light and water enough to flower in April.",
    "Who invented the telephone is disputed: Bell, Gray and Meucci all have a claim.",
    "Joseph Swan in England and Thomas Edison in the United States each made a working incandescent lamp in 1879.",
    "LED bulbs need a tenth of the power of an incandescent bulb for the same light.",
    "The filament glows because the current heats it to about 2,500 °C.",
    "Humphry Davy showed the arc lamp in 1802, decades before Edison patented the first bulb that could be sold.",
  ],
};
